# A fleet's two tables: its state (leases, checkpoints, gaps) and its dead letters. The daemons could make them; made
# here, they need no right to create tables, and the tables have backups and cannot be deleted by mistake.
#
# Paid by request: an idle fleet writes a few times a second, whatever the number of shards.

resource "aws_dynamodb_table" "state" {
  name                        = var.name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  deletion_protection_enabled = var.deletion_protection
  tags                        = var.tags

  attribute {
    name = "pk"
    type = "S"
  }
  attribute {
    name = "sk"
    type = "S"
  }
  # Nothing in it expires by itself: there is no Time to Live.
  point_in_time_recovery {
    enabled = true
  }
  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}

resource "aws_dynamodb_table" "dead_letters" {
  name                        = "${var.name}-dead-letters"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  deletion_protection_enabled = var.deletion_protection
  tags                        = var.tags

  attribute {
    name = "pk"
    type = "S"
  }
  attribute {
    name = "sk"
    type = "S"
  }
  ttl {
    attribute_name = "expires_s"
    enabled        = true
  }
  point_in_time_recovery {
    enabled = true
  }
  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}

locals {
  # What a daemon calls on its own two tables. A transaction needs the rights of what it is made of: a lease that is
  # handed on is a condition check and a put.
  daemon_statements = [
    {
      Sid    = "State"
      Effect = "Allow"
      Action = [
        "dynamodb:ConditionCheckItem",
        "dynamodb:DeleteItem",
        "dynamodb:DescribeTable",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
      ]
      Resource = [aws_dynamodb_table.state.arn]
    },
    {
      # The scan counts them for the status page.
      Sid    = "DeadLetters"
      Effect = "Allow"
      Action = [
        "dynamodb:DescribeTable",
        "dynamodb:DescribeTimeToLive",
        "dynamodb:PutItem",
        "dynamodb:Scan",
        "dynamodb:UpdateItem",
      ]
      Resource = [aws_dynamodb_table.dead_letters.arn]
    },
    {
      # Reading and writing a table that is encrypted with a key of the account takes the key, through DynamoDB only.
      Sid       = "TablesKey"
      Effect    = "Allow"
      Action    = ["kms:Decrypt", "kms:DescribeKey"]
      Resource  = [var.kms_key_arn]
      Condition = { StringEquals = { "kms:ViaService" = "dynamodb.${var.region}.amazonaws.com" } }
    },
  ]

  # `redrive` reads letters one by one, and deletes those that were sent again.
  operator_statements = [
    {
      Sid      = "DeadLettersRedrive"
      Effect   = "Allow"
      Action   = ["dynamodb:DeleteItem", "dynamodb:Query"]
      Resource = [aws_dynamodb_table.dead_letters.arn]
    },
  ]
}
