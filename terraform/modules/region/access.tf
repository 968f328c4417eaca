# What the cache-writers may do, and what their operators may do beside that. Each action is one that the code calls.

locals {
  master_tables = [for table in values(try(var.master.tables, {})) : table.arn]
  master_keys   = distinct([for table in values(try(var.master.tables, {})) : table.kms_key_arn if table.kms_key_arn != null])
  is_verified   = try(var.master.verify_keys_per_s, 0) > 0

  # Reading items that the cache lacks: of the cache-writers, and of readers that fill.
  fill_statements = concat(
    [for arns in length(local.master_tables) == 0 ? [] : [local.master_tables] :
      {
        Sid      = "Master"
        Effect   = "Allow"
        Action   = ["dynamodb:BatchGetItem", "dynamodb:DescribeTable"]
        Resource = arns
      }
    ],
    [for arns in length(local.master_keys) == 0 ? [] : [local.master_keys] :
      {
        Sid       = "MasterKeys"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:DescribeKey"]
        Resource  = arns
        Condition = { StringEquals = { "kms:ViaService" = "dynamodb.${var.master.region}.amazonaws.com" } }
      }
    ],
  )
  # A continuous verification, `verify --sample` and `--all` take their keys by Scan.
  verify_statements = [for arns in length(local.master_tables) == 0 ? [] : [local.master_tables] :
    {
      Sid      = "Verify"
      Effect   = "Allow"
      Action   = ["dynamodb:Scan"]
      Resource = arns
    }
  ]

  daemon_statements = concat(
    module.state.daemon_statements,
    [
      {
        Sid    = "Stream"
        Effect = "Allow"
        Action = [
          "kinesis:DescribeStreamSummary",
          "kinesis:GetRecords",
          "kinesis:GetShardIterator",
          "kinesis:ListShards",
        ]
        Resource = [aws_kinesis_stream.this.arn]
      },
      {
        Sid       = "StreamKey"
        Effect    = "Allow"
        Action    = ["kms:Decrypt"]
        Resource  = [local.kms_key_arn]
        Condition = { StringEquals = { "kms:ViaService" = "kinesis.${local.region}.amazonaws.com" } }
      },
    ],
    [for user in local.is_iam ? [aws_elasticache_user.this["writer"]] : [] :
      {
        Sid      = "Cache"
        Effect   = "Allow"
        Action   = ["elasticache:Connect"]
        Resource = [aws_elasticache_replication_group.this.arn, user.arn]
      }
    ],
    local.fill_statements,
    [for statement in local.verify_statements : statement if local.is_verified],
  )

  operator_statements = concat(
    local.daemon_statements,
    module.state.operator_statements,
    [for user in local.is_iam ? [aws_elasticache_user.this["operator"]] : [] :
      {
        Sid      = "CacheOperator"
        Effect   = "Allow"
        Action   = ["elasticache:Connect"]
        Resource = [aws_elasticache_replication_group.this.arn, user.arn]
      }
    ],
    [for statement in local.verify_statements : statement if !local.is_verified],
    [for arns in length(var.kcl_tables) == 0 ? [] : [var.kcl_tables] :
      {
        Sid      = "ImportKcl"
        Effect   = "Allow"
        Action   = ["dynamodb:Scan"]
        Resource = arns
      }
    ],
  )
}

# Attach it to the people, or the machine, that run the operators' commands.
resource "aws_iam_policy" "operator" {
  name        = "${var.name}-${local.region}-operator" # IAM's names are the account's.
  description = "The operators' commands of ${var.name}: status, explain, verify, replay, redrive, import-kcl"
  policy      = jsonencode({ Version = "2012-10-17", Statement = local.operator_statements })
  tags        = var.tags
}

# Attach one to the bidders' role: they connect as the cache's user for readers, or for readers that fill what they miss.
resource "aws_iam_policy" "reader" {
  for_each    = toset(local.is_iam ? ["reader", "filler"] : [])
  name        = "${var.name}-${local.region}-${each.key}"
  description = "Connecting to the cache of ${var.name} as its user ${aws_elasticache_user.this[each.key].user_name}"
  tags        = var.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid      = "Cache"
          Effect   = "Allow"
          Action   = ["elasticache:Connect"]
          Resource = [aws_elasticache_replication_group.this.arn, aws_elasticache_user.this[each.key].arn]
        },
      ],
      [for statement in local.fill_statements : statement if each.key == "filler"],
    )
  })
}
