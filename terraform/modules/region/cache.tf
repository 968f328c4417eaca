# The region's cache: a Valkey cluster with TLS, replicas in other zones, and users of its own. It evicts nothing: a server
# that evicts loses what proves that a change is news (docs/cache-protocol.md).

locals {
  port = 6379

  # AWS: how ElastiCache names the nodes of a cluster, shards and nodes from 1.
  node_ids = [
    for node in setproduct(range(1, var.cache.shards + 1), range(1, var.cache.replicas + 2)) :
    format("%s-%04d-%03d", var.name, node[0], node[1])
  ]
}

resource "aws_elasticache_subnet_group" "this" {
  name        = var.name
  description = "Cache of ${var.name}"
  subnet_ids  = var.network.subnet_ids
  tags        = var.tags
}

resource "aws_elasticache_parameter_group" "this" {
  name        = var.name
  description = "Cache of ${var.name}: a cluster that evicts nothing"
  family      = "valkey8"
  tags        = var.tags

  parameter {
    name  = "cluster-enabled"
    value = "yes"
  }
  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

resource "aws_elasticache_replication_group" "this" {
  replication_group_id = var.name
  description          = "Cache of ${var.name}"
  engine               = "valkey"
  engine_version       = var.cache.engine_version
  node_type            = var.cache.node_type
  port                 = local.port
  parameter_group_name = aws_elasticache_parameter_group.this.name
  subnet_group_name    = aws_elasticache_subnet_group.this.name
  security_group_ids   = [aws_security_group.cache.id]
  tags                 = var.tags

  num_node_groups            = var.cache.shards
  replicas_per_node_group    = var.cache.replicas
  automatic_failover_enabled = true
  multi_az_enabled           = true

  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  kms_key_id                 = local.kms_key_arn
  user_group_ids             = [local.is_iam ? one(aws_elasticache_user_group.this[*].user_group_id) : var.auth.user_group_id]

  auto_minor_version_upgrade = true
  maintenance_window         = var.cache.maintenance_window
  snapshot_retention_limit   = var.cache.snapshot_retention_days
  snapshot_window            = var.cache.snapshot_window
  # Changes of nodes wait for the maintenance window.
  apply_immediately = false

  log_delivery_configuration {
    destination      = aws_cloudwatch_log_group.cache["slow"].name
    destination_type = "cloudwatch-logs"
    log_format       = "json"
    log_type         = "slow-log"
  }
  log_delivery_configuration {
    destination      = aws_cloudwatch_log_group.cache["engine"].name
    destination_type = "cloudwatch-logs"
    log_format       = "json"
    log_type         = "engine-log"
  }
}

resource "aws_cloudwatch_log_group" "cache" {
  for_each          = toset(["slow", "engine"])
  name              = "/warmcast/${var.name}/cache-${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = local.kms_key_arn
  tags              = var.tags
}

# Who may connect
# ---------------

locals {
  # What each may do: docs/security.md, and a test holds these against it. A cache-writer that verifies does what an
  # operator does.
  writes   = "+evalsha +script|load +time +info +get +getrange +set +setrange +del +pttl +pexpire"
  verifies = "+mget +scan +randomkey +type"
  rights = {
    writer   = local.is_verified ? "${local.writes} ${local.verifies}" : local.writes
    operator = "${local.writes} ${local.verifies}"
    filler   = local.writes
    reader   = "+time +role +get +mget"
  }
  in_a_cluster = { writer = "", operator = "", filler = "", reader = " +readonly" }
}

# AWS: with IAM a user's id and name are the same. Valkey needs no user `default`, so nobody comes in without a name.
resource "aws_elasticache_user" "this" {
  for_each      = local.is_iam ? local.rights : {}
  user_id       = each.key == "writer" ? var.name : "${var.name}-${each.key}"
  user_name     = each.key == "writer" ? var.name : "${var.name}-${each.key}"
  engine        = "valkey"
  access_string = "on ~* -@all ${each.value} +cluster|slots +asking${local.in_a_cluster[each.key]}"
  tags          = var.tags

  authentication_mode {
    type = "iam"
  }
}

resource "aws_elasticache_user_group" "this" {
  count         = local.is_iam ? 1 : 0
  user_group_id = var.name
  engine        = "valkey"
  user_ids      = sort([for user in aws_elasticache_user.this : user.user_id])
  tags          = var.tags
}

resource "aws_security_group" "cache" {
  name        = "${var.name}-cache"
  description = "Cache of ${var.name}"
  vpc_id      = var.network.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-cache" })
}

resource "aws_vpc_security_group_ingress_rule" "writers" {
  security_group_id            = aws_security_group.cache.id
  description                  = "Cache-writers"
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
  referenced_security_group_id = module.service.security_group_id
}

resource "aws_vpc_security_group_ingress_rule" "readers" {
  count                        = length(var.cache.reader_security_groups)
  security_group_id            = aws_security_group.cache.id
  description                  = "Readers"
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
  referenced_security_group_id = var.cache.reader_security_groups[count.index]
}

resource "aws_vpc_security_group_egress_rule" "cache" {
  security_group_id            = module.service.security_group_id
  description                  = "The cache"
  ip_protocol                  = "tcp"
  from_port                    = local.port
  to_port                      = local.port
  referenced_security_group_id = aws_security_group.cache.id
}
