# One master region and two target regions. Each region is a provider, and each fleet a module that is given it.
# The tables, with their streams, and the networks are there: they are their owners'.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }
}

provider "aws" {
  region = "us-east-1"
}

provider "aws" {
  alias  = "eu_west_1"
  region = "eu-west-1"
}

provider "aws" {
  alias  = "ap_northeast_1"
  region = "ap-northeast-1"
}

locals {
  tables = { for name, arn in var.table_arns : name => { arn = arn } }
  tags   = { Service = "warmcast" }

  compute = { for daemon, image in var.images : daemon => { kind = "fargate", image = image } }
}

module "eu_west_1" {
  source    = "../../modules/region"
  providers = { aws = aws.eu_west_1 }

  cache         = { node_type = "cache.r7g.xlarge", shards = 2, reader_security_groups = var.bidders["eu-west-1"] }
  master        = { region = "us-east-1", tables = local.tables }
  compute       = local.compute["cache-writer"]
  network       = var.networks["eu-west-1"]
  alarm_actions = var.alarm_topics["eu-west-1"]
  tags          = local.tags
}

module "ap_northeast_1" {
  source    = "../../modules/region"
  providers = { aws = aws.ap_northeast_1 }

  cache         = { node_type = "cache.r7g.large", reader_security_groups = var.bidders["ap-northeast-1"] }
  master        = { region = "us-east-1", tables = local.tables }
  compute       = local.compute["cache-writer"]
  network       = var.networks["ap-northeast-1"]
  alarm_actions = var.alarm_topics["ap-northeast-1"]
  tags          = local.tags
}

module "master" {
  source = "../../modules/master"

  tables = local.tables
  regions = {
    eu-west-1      = { target = module.eu_west_1.target }
    ap-northeast-1 = { target = module.ap_northeast_1.target }
  }
  compute       = local.compute["aggregator"]
  network       = var.networks["us-east-1"]
  alarm_actions = var.alarm_topics["us-east-1"]
  tags          = local.tags
}

output "cache_endpoints" {
  description = "Where bidders read: rediss+cluster://ENDPOINT:6379, as one of `cache_users`."
  value = {
    eu-west-1      = module.eu_west_1.cache_endpoint
    ap-northeast-1 = module.ap_northeast_1.cache_endpoint
  }
}

output "reader_policies" {
  description = "Policies for the bidders' roles."
  value = {
    eu-west-1      = module.eu_west_1.reader_policy_arns
    ap-northeast-1 = module.ap_northeast_1.reader_policy_arns
  }
}
