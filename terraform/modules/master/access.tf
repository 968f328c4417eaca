# What the aggregators may do, and what their operators may do beside that. Each action is one that the code calls.

locals {
  table_arns  = sort([for table in var.tables : table.arn])
  stream_arns = sort([for region in var.regions : region.target.stream_arn])

  # Keys of the tables, and of the regions' streams by region, as a key is used through one service of one region.
  table_keys  = sort(distinct([for table in var.tables : table.kms_key_arn if table.kms_key_arn != null]))
  target_keys = { for region in var.regions : region.target.region => region.target.kms_key_arn... }

  daemon_statements = concat(
    module.state.daemon_statements,
    [
      {
        Sid      = "TablesDescribe"
        Effect   = "Allow"
        Action   = ["dynamodb:DescribeTable"]
        Resource = local.table_arns
      },
      {
        # Every stream that a table has or will have: one that is enabled again has another name.
        Sid      = "TableStreams"
        Effect   = "Allow"
        Action   = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
        Resource = [for arn in local.table_arns : "${arn}/stream/*"]
      },
      {
        Sid      = "Targets"
        Effect   = "Allow"
        Action   = ["kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:PutRecords"]
        Resource = local.stream_arns
      },
    ],
    [for index, region in sort(keys(local.target_keys)) :
      {
        Sid       = "TargetKeys${index}"
        Effect    = "Allow"
        Action    = ["kms:GenerateDataKey"]
        Resource  = sort(distinct(local.target_keys[region]))
        Condition = { StringEquals = { "kms:ViaService" = "kinesis.${region}.amazonaws.com" } }
      }
    ],
    [for keys in length(local.table_keys) == 0 ? [] : [local.table_keys] :
      {
        Sid       = "SourceKeys"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:DescribeKey"]
        Resource  = keys
        Condition = { StringEquals = { "kms:ViaService" = "dynamodb.${local.region}.amazonaws.com" } }
      }
    ],
  )

  operator_statements = concat(
    local.daemon_statements,
    module.state.operator_statements,
    [
      {
        # `backfill` reads whole tables, or the keys that it is given.
        Sid      = "Backfill"
        Effect   = "Allow"
        Action   = ["dynamodb:BatchGetItem", "dynamodb:Scan"]
        Resource = local.table_arns
      },
    ],
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
  description = "The operators' commands of ${var.name}: status, backfill, replay, redrive, regions, import-kcl"
  policy      = jsonencode({ Version = "2012-10-17", Statement = local.operator_statements })
  tags        = var.tags
}
