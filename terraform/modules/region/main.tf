# A target region: its stream, its cache, and the cache-writers between them.

data "aws_region" "current" {}

locals {
  # `id`, for `name` is deprecated in provider 6 and `region` is not in provider 5.
  region      = data.aws_region.current.id
  kms_key_arn = var.create_kms_key ? one(module.key[*].arn) : var.kms_key_arn
  is_iam      = var.auth.kind == "iam"
}

module "key" {
  source = "../key"
  count  = var.create_kms_key ? 1 : 0

  name = var.name
  tags = var.tags
}

# The region works by itself: what its cache-writers know is here, and not in the master region.
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
  daemon                   = "cache-writer"
  region                   = local.region
  config_toml              = local.config_toml
  environment              = var.environment
  secrets                  = local.is_iam ? {} : { WARMCAST__REDIS__PASSWORD = var.auth.password_secret_arn }
  statements               = local.daemon_statements
  compute                  = var.compute
  network                  = var.network
  scaling                  = var.scaling
  log_retention_days       = var.log_retention_days
  kms_key_arn              = local.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
  tags                     = var.tags

  log_metrics = {
    # How old the newest watermark is that a worker has published. Not every worker publishes: the least is the region's.
    watermark_age = {
      pattern = "{ $.message = \"stats\" && $.watermark_age_ms >= 0 }"
      value   = "$.watermark_age_ms"
      unit    = "Milliseconds"
    }
    # The line of each that is found, and not the counter in `stats`: that stays above zero until the process ends.
    mismatches = {
      pattern = "{ $.message = \"an entry is wrong and stays so*\" }"
      value   = "1"
      unit    = "Count"
    }
  }
}
