# The master region: what the aggregators may do, what they are told, and what raises an alarm.

mock_provider "aws" {
  source = "../../testing"

  override_resource {
    target = module.state.aws_dynamodb_table.state
    values = { arn = "arn:aws:dynamodb:us-east-1:111122223333:table/warmcast-aggregator" }
  }
  override_resource {
    target = module.state.aws_dynamodb_table.dead_letters
    values = { arn = "arn:aws:dynamodb:us-east-1:111122223333:table/warmcast-aggregator-dead-letters" }
  }
  override_data {
    target = data.aws_region.current
    values = { id = "us-east-1" }
  }
}

variables {
  tables = {
    profiles     = { arn = "arn:aws:dynamodb:us-east-1:111122223333:table/profiles", kms_key_arn = "arn:aws:kms:us-east-1:111122223333:key/profiles" }
    "Ads.Live-2" = { arn = "arn:aws:dynamodb:us-east-1:111122223333:table/Ads.Live-2", initial_position = "latest" }
  }
  regions = {
    eu-west-1 = {
      target = {
        region      = "eu-west-1"
        stream_name = "warmcast"
        stream_arn  = "arn:aws:kinesis:eu-west-1:111122223333:stream/warmcast"
        kms_key_arn = "arn:aws:kms:eu-west-1:111122223333:key/ireland"
      }
    }
    asia = {
      target = {
        region      = "ap-northeast-1"
        stream_name = "warmcast"
        stream_arn  = "arn:aws:kinesis:ap-northeast-1:111122223333:stream/warmcast"
        kms_key_arn = "arn:aws:kms:ap-northeast-1:111122223333:key/tokyo"
      }
      initial_position = "backfill"
      record_format    = "kpl"
      tables = { profiles = {
        condition          = "country IN ('JP', 'KR') AND age >= 18 AND note <> 'R&D \"x\"'"
        projection         = ["segments", "country"]
        suppress_unchanged = false
      } }
    }
  }
  compute = {
    kind                 = "fargate"
    image                = "111122223333.dkr.ecr.us-east-1.amazonaws.com/warmcast:1"
    image_repository_arn = "arn:aws:ecr:us-east-1:111122223333:repository/warmcast"
  }
  network       = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"] }
  alarm_actions = ["arn:aws:sns:us-east-1:111122223333:on-call"]
}

run "on_fargate" {
  # A test of the aggregator checks that it takes this file.
  assert {
    condition     = output.config_toml == file("tests/expected/aggregator.toml")
    error_message = "The configuration is not tests/expected/aggregator.toml:\n${output.config_toml}"
  }

  # Every action that the daemon calls, and no other; on ARNs.
  assert {
    condition = toset(flatten(jsondecode(output.role_policy).Statement[*].Action)) == toset([
      "dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:DescribeStream", "dynamodb:DescribeTable",
      "dynamodb:DescribeTimeToLive", "dynamodb:GetItem", "dynamodb:GetRecords", "dynamodb:GetShardIterator",
      "dynamodb:PutItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:UpdateItem",
      "kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:PutRecords",
      "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey",
    ])
    error_message = "The daemon's actions have changed: ${output.role_policy}"
  }
  assert {
    condition = alltrue([
      for resource in flatten(jsondecode(output.role_policy).Statement[*].Resource) :
      startswith(resource, "arn:aws:") && !strcontains(trimsuffix(resource, "/stream/*"), "*")
    ])
    error_message = "A resource is not an ARN, or is a wildcard other than a table's streams."
  }
  assert {
    condition = [
      for statement in jsondecode(output.role_policy).Statement : statement.Resource if try(contains(statement.Action, "kinesis:PutRecords"), false)
      ] == [[
        "arn:aws:kinesis:ap-northeast-1:111122223333:stream/warmcast",
        "arn:aws:kinesis:eu-west-1:111122223333:stream/warmcast",
    ]]
    error_message = "It puts into the regions' streams."
  }
  assert {
    condition = [
      for statement in jsondecode(output.role_policy).Statement : statement.Resource if contains(statement.Action, "dynamodb:PutItem")
      ] == [
      ["arn:aws:dynamodb:us-east-1:111122223333:table/warmcast-aggregator"],
      ["arn:aws:dynamodb:us-east-1:111122223333:table/warmcast-aggregator-dead-letters"],
    ]
    error_message = "It writes to its own two tables and to no other."
  }
  assert {
    condition = [
      for statement in jsondecode(output.role_policy).Statement : statement.Resource if contains(statement.Action, "dynamodb:GetRecords")
      ] == [[
        "arn:aws:dynamodb:us-east-1:111122223333:table/Ads.Live-2/stream/*",
        "arn:aws:dynamodb:us-east-1:111122223333:table/profiles/stream/*",
    ]]
    error_message = "It reads the tables' streams."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(output.role_policy).Statement : can(statement.Condition.StringEquals["kms:ViaService"])
      if anytrue([for action in statement.Action : startswith(action, "kms:")])
    ])
    error_message = "A key is used through its service only."
  }
  assert {
    condition = setsubtract(
      flatten(jsondecode(aws_iam_policy.operator.policy).Statement[*].Action),
      flatten(jsondecode(output.role_policy).Statement[*].Action),
    ) == toset(["dynamodb:BatchGetItem"])
    error_message = "The operators' commands call what the daemon does, and read the tables' items."
  }
  assert {
    condition = [
      for statement in jsondecode(aws_iam_policy.operator.policy).Statement : statement.Resource if contains(statement.Action, "dynamodb:BatchGetItem")
      ] == [[
        "arn:aws:dynamodb:us-east-1:111122223333:table/Ads.Live-2", "arn:aws:dynamodb:us-east-1:111122223333:table/profiles",
    ]]
    error_message = "A backfill reads the tables."
  }

  # A process that is told to stop has the time that it takes.
  assert {
    condition     = jsondecode(output.container_definitions)[1].stopTimeout * 1000 > var.shutdown_deadline_ms
    error_message = "SIGKILL comes before the deadline."
  }

  # Alarms.
  assert {
    condition = (
      aws_cloudwatch_metric_alarm.log["lag"].threshold == 300000 && aws_cloudwatch_metric_alarm.log["lag"].treat_missing_data == "breaching" &&
      aws_cloudwatch_metric_alarm.log["lag-page"].threshold == 12 * 3600 * 1000
    )
    error_message = "A fleet that is behind or silent raises an alarm, and another at half of the streams' 24 hours."
  }
  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.log), values(aws_cloudwatch_metric_alarm.state_throttled)) :
      alarm.alarm_actions == toset(["arn:aws:sns:us-east-1:111122223333:on-call"])
    ])
    error_message = "Every alarm is sent."
  }
  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.log), values(aws_cloudwatch_metric_alarm.state_throttled)) :
      contains(
        [for heading in regexall("(?m)^## (.*)$", file("../../../docs/handbook.md")) : replace(lower(heading[0]), " ", "-")],
        regex("docs/handbook.md#([a-z0-9-]+)$", alarm.alarm_description)[0],
      )
    ])
    error_message = "An alarm names a recipe that the handbook does not have."
  }
}

run "what_is_wrong_is_refused" {
  command = plan
  variables {
    tables      = { profiles = { arn = "arn:aws:dynamodb:us-east-1:111122223333:table/profiles/stream/2026-01-01T00:00:00.000" } }
    buckets     = 60
    environment = { WARMCAST__DYNAMODB__SECRET_ACCESS_KEY = "hunter2", WARMCAST__ADMIN__BEARER_TOKEN = "hunter2", WARMCAST__REDIS__PASSWORD = "hunter2" }
    compute     = { kind = "ec2" }
    network     = { vpc_id = "vpc-1", subnet_ids = ["subnet-1"] }
    scaling     = { min = 3, max = 2 }
  }
  expect_failures = [var.tables, var.buckets, var.environment, var.compute, var.network, var.scaling]
}
