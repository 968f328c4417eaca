# The key that everything of one fleet is encrypted with, where the caller has none.
# Who may use it is said by IAM policies, as the account delegates to them; only CloudWatch Logs is named here, since it
# is no principal of the account.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  # `id`, for `name` is deprecated in provider 6 and `region` is not in provider 5.
  region     = data.aws_region.current.id
  log_groups = "arn:${data.aws_partition.current.partition}:logs:${local.region}:${data.aws_caller_identity.current.account_id}:log-group:/warmcast/${var.name}*"
}

resource "aws_kms_key" "this" {
  description             = "${var.name}: tables, stream, cache and logs"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = var.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # AWS: without this the key cannot be managed, and IAM policies say nothing about it.
        Sid       = "AccountDelegatesToIam"
        Effect    = "Allow"
        Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root" }
        Action    = "kms:*"
        Resource  = "*" # This key: what a key's policy is about.
      },
      {
        Sid       = "LogsOfThisFleet"
        Effect    = "Allow"
        Principal = { Service = "logs.${local.region}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
        Resource  = "*" # This key.
        Condition = { ArnLike = { "kms:EncryptionContext:aws:logs:arn" = local.log_groups } }
      },
    ]
  })
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.key_id
}
