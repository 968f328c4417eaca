# A fleet of one daemon: on Fargate, or on EC2 instances in an autoscaling group. Both have the same role, the same log
# group with the same metrics, the same security group, and scale by the same alarms.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  partition  = data.aws_partition.current.partition
  account    = data.aws_caller_identity.current.account_id
  is_fargate = var.compute.kind == "fargate"
  config     = "/etc/warmcast/${var.daemon}.toml"
  program    = "/usr/bin/${var.daemon}"
  namespace  = "Warmcast/${var.name}"

  # IAM's names are the account's, whatever the region: fleets of two regions have the same `name`.
  account_wide_name = "${var.name}-${var.region}"

  # One worker more, then one less. AWS rounds down: of a single worker, half more is none.
  deployment_percent_max = var.scaling.min == 1 ? 200 : 150
}

# What the workers may do
# -----------------------

resource "aws_iam_role" "this" {
  name                 = local.account_wide_name
  description          = "What ${var.name}'s workers may do"
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Allow"
        Principal = { Service = local.is_fargate ? "ecs-tasks.amazonaws.com" : "ec2.amazonaws.com" }
        Action    = "sts:AssumeRole"
        # AWS: keeps the service from being made to act for another account. EC2 sends no source account.
        Condition = { for test in local.is_fargate ? ["StringEquals"] : [] : test => { "aws:SourceAccount" = local.account } }
      },
    ]
  })
}

resource "aws_iam_role_policy" "this" {
  name   = var.daemon
  role   = aws_iam_role.this.id
  policy = jsonencode({ Version = "2012-10-17", Statement = var.statements })
}

# Whom they talk to
# -----------------

resource "aws_security_group" "this" {
  name        = var.name
  description = "Workers of ${var.name}"
  vpc_id      = var.network.vpc_id
  tags        = merge(var.tags, { Name = var.name })
}

resource "aws_vpc_security_group_egress_rule" "https" {
  security_group_id = aws_security_group.this.id
  description       = "AWS services, over TLS; use VPC endpoints to keep it in the VPC"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

# Debian's mirrors speak HTTP; what comes from them is signed.
resource "aws_vpc_security_group_egress_rule" "packages" {
  count             = local.is_fargate ? 0 : 1
  security_group_id = aws_security_group.this.id
  description       = "Signed packages, while an instance is set up"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
  cidr_ipv4         = "0.0.0.0/0"
}

# What they say
# -------------

resource "aws_cloudwatch_log_group" "this" {
  name              = "/warmcast/${var.name}"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.kms_key_arn
  tags              = var.tags
}

locals {
  # Metrics are made of the JSON log lines: no agent, no open port, and no other way for them than the log's. The
  # `stats` line comes every ten seconds from every worker.
  log_metrics = merge({
    lag          = { pattern = "{ $.message = \"stats\" && $.lag_ms >= 0 }", value = "$.lag_ms", unit = "Milliseconds" }
    shards       = { pattern = "{ $.message = \"stats\" && $.shards >= 0 }", value = "$.shards", unit = "Count" }
    errors       = { pattern = "{ $.level = \"ERROR\" }", value = "1", unit = "Count" }
    dead_letters = { pattern = "{ $.message = \"set aside as a dead letter\" }", value = "1", unit = "Count" }
    gaps         = { pattern = "{ $.message = \"gap: *\" }", value = "1", unit = "Count" }
  }, var.log_metrics)
}

resource "aws_cloudwatch_log_metric_filter" "this" {
  for_each       = local.log_metrics
  name           = "${var.name}-${each.key}"
  log_group_name = aws_cloudwatch_log_group.this.name
  pattern        = each.value.pattern

  metric_transformation {
    namespace = local.namespace
    name      = each.key
    value     = each.value.value
    unit      = each.value.unit
  }
}
