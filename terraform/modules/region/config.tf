# The cache-writers' configuration. tests/ hold it against tests/expected/cache-writer.toml, and a test of the cache-writer
# checks that it takes that file.

locals {
  config_toml = templatefile("${path.module}/templates/cache-writer.toml.tftpl", {
    region                     = local.region
    stream                     = aws_kinesis_stream.this.name
    state_table                = module.state.state_table
    dead_letter_table          = module.state.dead_letter_table
    dead_letter_retention_days = var.dead_letter_retention_days
    redis_url                  = "rediss+cluster://${aws_elasticache_replication_group.this.configuration_endpoint_address}:${local.port}"
    redis_username             = local.is_iam ? var.name : var.auth.username
    is_iam                     = local.is_iam
    cache_name                 = var.name
    entries                    = var.entries
    master                     = var.master
    shutdown_deadline_ms       = var.shutdown_deadline_ms
  })
}
