# The example with the values of terraform.tfvars.example.

mock_provider "aws" {
  source = "../../testing"
}

mock_provider "aws" {
  alias  = "eu_west_1"
  source = "../../testing"
}

mock_provider "aws" {
  alias  = "ap_northeast_1"
  source = "../../testing"
}

# The tests' AWS is in Ireland for everybody who is not somewhere else.
override_data {
  target = module.master.data.aws_region.current
  values = { id = "us-east-1" }
}

override_data {
  target = module.ap_northeast_1.data.aws_region.current
  values = { id = "ap-northeast-1" }
}

variables {
  table_arns = { profiles = "arn:aws:dynamodb:us-east-1:111122223333:table/profiles" }
  images = {
    aggregator   = "registry.example.com/warmcast-aggregator:0.1.0"
    cache-writer = "registry.example.com/warmcast-cache-writer:0.1.0"
  }
  networks = {
    us-east-1      = { vpc_id = "vpc-0a", subnet_ids = ["subnet-0a1", "subnet-0a2"] }
    eu-west-1      = { vpc_id = "vpc-0b", subnet_ids = ["subnet-0b1", "subnet-0b2"] }
    ap-northeast-1 = { vpc_id = "vpc-0c", subnet_ids = ["subnet-0c1", "subnet-0c2"] }
  }
  bidders      = { eu-west-1 = ["sg-0b"], ap-northeast-1 = ["sg-0c"] }
  alarm_topics = { for region in ["us-east-1", "eu-west-1", "ap-northeast-1"] : region => ["arn:aws:sns:${region}:111122223333:on-call"] }
}

run "every_region_is_fed" {
  assert {
    condition     = length(regexall("(?m)^\\[regions\\.\"(eu-west-1|ap-northeast-1)\"\\]$", module.master.config_toml)) == 2
    error_message = "The aggregators know both regions:\n${module.master.config_toml}"
  }
  assert {
    condition     = length(output.cache_endpoints) == 2
    error_message = "Bidders are told where to read."
  }
  assert {
    # Roles, policies and dashboards are the account's: the second region's would be refused, or overwrite the first's.
    condition = alltrue([
      for pair in [
        [module.eu_west_1.account_wide_names, module.ap_northeast_1.account_wide_names],
        [module.eu_west_1.account_wide_names, module.master.account_wide_names],
        [module.ap_northeast_1.account_wide_names, module.master.account_wide_names],
      ] : length(setintersection(pair...)) == 0
    ])
    error_message = "Two fleets of one account have the same names: ${jsonencode([
      module.master.account_wide_names, module.eu_west_1.account_wide_names, module.ap_northeast_1.account_wide_names,
    ])}"
  }
  assert {
    condition = toset(module.eu_west_1.account_wide_names) == toset([
      "warmcast-cache-writer-eu-west-1", "warmcast-cache-writer-eu-west-1-start", "warmcast-cache-writer-eu-west-1-operator",
      "warmcast-cache-writer-eu-west-1-reader", "warmcast-cache-writer-eu-west-1-filler",
    ])
    error_message = "A region's roles, policies and dashboard have its name: ${jsonencode(module.eu_west_1.account_wide_names)}"
  }
}
