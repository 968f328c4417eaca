# The master region: aggregators, which tail the tables' streams and send what changes to every region's stream.

data "aws_region" "current" {}

locals {
  # `id`, for `name` is deprecated in provider 6 and `region` is not in provider 5.
  region      = data.aws_region.current.id
  kms_key_arn = var.create_kms_key ? one(module.key[*].arn) : var.kms_key_arn
}

# Tables that were looked up, if that is wanted: it needs dynamodb:DescribeTable on them.
data "aws_dynamodb_table" "source" {
  for_each = var.check_streams ? var.tables : {}
  name     = each.key

  lifecycle {
    postcondition {
      condition     = self.stream_enabled
      error_message = "Table ${each.key} has no stream: enable it with the view type NEW_IMAGE."
    }
    postcondition {
      condition     = contains(["NEW_IMAGE", "NEW_AND_OLD_IMAGES"], self.stream_view_type)
      error_message = "The stream of table ${each.key} has no new images: every region would read each changed item from the table. Enable it again with the view type NEW_IMAGE."
    }
  }
}

module "key" {
  source = "../key"
  count  = var.create_kms_key ? 1 : 0

  name = var.name
  tags = var.tags
}

module "state" {
  source = "../state"

  name                = var.name
  region              = local.region
  kms_key_arn         = local.kms_key_arn
  deletion_protection = var.deletion_protection
  tags                = var.tags
}

module "service" {
  source = "../service"

  name                     = var.name
  daemon                   = "aggregator"
  region                   = local.region
  config_toml              = local.config_toml
  environment              = var.environment
  statements               = local.daemon_statements
  compute                  = var.compute
  network                  = var.network
  scaling                  = var.scaling
  log_retention_days       = var.log_retention_days
  kms_key_arn              = local.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags

  log_metrics = {
    regions_not_answering = {
      pattern = "{ $.message = \"stats\" && $.regions_not_answering >= 0 }"
      value   = "$.regions_not_answering"
      unit    = "Count"
    }
  }
}
