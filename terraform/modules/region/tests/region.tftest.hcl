# A target region: its stream, its cache, what the cache-writers may do and are told, and what raises an alarm.

mock_provider "aws" {
  source = "../../testing"

  override_resource {
    target = module.state.aws_dynamodb_table.state
    values = { arn = "arn:aws:dynamodb:eu-west-1:111122223333:table/warmcast-cache-writer" }
  }
  override_resource {
    target = module.state.aws_dynamodb_table.dead_letters
    values = { arn = "arn:aws:dynamodb:eu-west-1:111122223333:table/warmcast-cache-writer-dead-letters" }
  }
}

variables {
  cache = { shards = 2, replicas = 1, reader_security_groups = ["sg-bidders"] }
  master = {
    region            = "us-east-1"
    verify_keys_per_s = 5
    tables = {
      profiles = { arn = "arn:aws:dynamodb:us-east-1:111122223333:table/profiles", kms_key_arn = "arn:aws:kms:us-east-1:111122223333:key/profiles" }
    }
  }
  entries       = { expiry_attribute = "expires_at" }
  compute       = { kind = "fargate", image = "warmcast:1" }
  network       = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"] }
  alarm_actions = ["arn:aws:sns:eu-west-1:111122223333:on-call"]
}

run "with_iam_on_fargate" {
  # A test of the cache-writer checks that it takes this file.
  assert {
    condition     = output.config_toml == file("tests/expected/cache-writer.toml")
    error_message = "The configuration is not tests/expected/cache-writer.toml:\n${output.config_toml}"
  }

  # Every action that the daemon calls, and no other; on ARNs.
  assert {
    condition = toset(flatten(jsondecode(output.role_policy).Statement[*].Action)) == toset([
      "dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:DescribeTable",
      "dynamodb:DescribeTimeToLive", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:Scan",
      "dynamodb:UpdateItem", "elasticache:Connect", "kinesis:DescribeStreamSummary", "kinesis:GetRecords",
      "kinesis:GetShardIterator", "kinesis:ListShards", "kms:Decrypt", "kms:DescribeKey",
    ])
    error_message = "The daemon's actions have changed: ${output.role_policy}"
  }
  assert {
    condition = alltrue([
      for resource in flatten(jsondecode(output.role_policy).Statement[*].Resource) : startswith(resource, "arn:aws:") && !strcontains(resource, "*")
    ])
    error_message = "A resource is not an ARN, or is a wildcard."
  }
  assert {
    condition = [
      for statement in jsondecode(output.role_policy).Statement : statement.Resource if contains(statement.Action, "dynamodb:PutItem")
      ] == [
      ["arn:aws:dynamodb:eu-west-1:111122223333:table/warmcast-cache-writer"],
      ["arn:aws:dynamodb:eu-west-1:111122223333:table/warmcast-cache-writer-dead-letters"],
    ]
    error_message = "It writes to its own two tables, and never to the master's."
  }
  assert {
    condition = alltrue([
      for statement in jsondecode(output.role_policy).Statement : can(statement.Condition.StringEquals["kms:ViaService"])
      if anytrue([for action in statement.Action : startswith(action, "kms:")])
    ])
    error_message = "A key is used through its service only."
  }
  assert {
    condition     = flatten(jsondecode(aws_iam_policy.reader["reader"].policy).Statement[*].Action) == ["elasticache:Connect"]
    error_message = "Readers connect, and nothing else."
  }
  assert {
    # What a Reader with a master calls (cache/src/master/).
    condition = flatten([
      for statement in jsondecode(aws_iam_policy.reader["filler"].policy).Statement : [for action in statement.Action : "${action} ${statement.Resource[0]}"]
      ]) == [
      "elasticache:Connect ${aws_elasticache_replication_group.this.arn}",
      "dynamodb:BatchGetItem arn:aws:dynamodb:us-east-1:111122223333:table/profiles",
      "dynamodb:DescribeTable arn:aws:dynamodb:us-east-1:111122223333:table/profiles",
      "kms:Decrypt arn:aws:kms:us-east-1:111122223333:key/profiles",
      "kms:DescribeKey arn:aws:kms:us-east-1:111122223333:key/profiles",
    ]
    error_message = "Readers that fill read the master's tables as well: ${aws_iam_policy.reader["filler"].policy}"
  }
  assert {
    condition = alltrue([
      for name in output.account_wide_names : startswith(name, "warmcast-cache-writer-eu-west-1")
    ]) && contains(output.account_wide_names, aws_cloudwatch_dashboard.this.dashboard_name)
    error_message = "What is the account's has the region in its name: ${jsonencode(output.account_wide_names)}"
  }

  # The stream.
  assert {
    condition = (
      aws_kinesis_stream.this.encryption_type == "KMS" && aws_kinesis_stream.this.kms_key_id == output.target.kms_key_arn &&
      aws_kinesis_stream.this.stream_mode_details[0].stream_mode == "ON_DEMAND"
    )
    error_message = "The stream is encrypted, and on demand where no shards are asked for."
  }

  # The cache.
  assert {
    condition = (
      aws_elasticache_replication_group.this.transit_encryption_mode == "required" &&
      aws_elasticache_replication_group.this.at_rest_encryption_enabled == "true" &&
      aws_elasticache_replication_group.this.multi_az_enabled && aws_elasticache_replication_group.this.automatic_failover_enabled
    )
    error_message = "The cache speaks TLS only, is encrypted, and survives a zone."
  }
  assert {
    condition     = contains([for parameter in aws_elasticache_parameter_group.this.parameter : "${parameter.name}=${parameter.value}"], "maxmemory-policy=noeviction")
    error_message = "The cache must not evict: it would lose what proves that a change is news."
  }
  assert {
    condition     = alltrue([for user in aws_elasticache_user.this : user.authentication_mode[0].type == "iam" && user.user_id == user.user_name])
    error_message = "AWS: with IAM a user's id and name are the same."
  }
  assert {
    # The words of the page's two headings, for a user that the page calls `warmcast-...`.
    condition = alltrue([
      for name, words in {
        writer = "operator", operator = "operator", filler = "writer", reader = "reader" # This one verifies.
        } : aws_elasticache_user.this[name].access_string == "on ~* -@all ${
        regex("ACL SETUSER warmcast-${words} on >PASSWORD resetchannels -@all ~PREFIX[*] (.*)\n", file("../../../docs/security.md"))[0]} ${
      regex("ACL SETUSER warmcast-${words} ([+]cluster.*)\n", file("../../../docs/security.md"))[0]}"
    ])
    error_message = "A user may do what docs/security.md says, and nothing else."
  }
  assert {
    condition     = jsondecode(output.container_definitions)[1].secrets == []
    error_message = "With IAM there is no secret."
  }

  # Alarms.
  assert {
    # A counter of the whole process would never be below it again.
    condition = (
      aws_cloudwatch_metric_alarm.log["mismatches"].statistic == "Sum" && aws_cloudwatch_metric_alarm.log["mismatches"].threshold == 0 &&
      aws_cloudwatch_metric_alarm.log["mismatches"].treat_missing_data == "notBreaching"
    )
    error_message = "An entry that is wrong raises an alarm when it is found."
  }
  assert {
    condition = (
      aws_cloudwatch_metric_alarm.log["watermark"].statistic == "Minimum" &&
      aws_cloudwatch_metric_alarm.log["watermark"].treat_missing_data == "breaching"
    )
    error_message = "A watermark that is old, or that nobody tells, raises an alarm."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.stream["iterator-age-page"].threshold == 12 * 3600 * 1000
    error_message = "Half of the stream's 24 hours raise an alarm."
  }
  assert {
    condition = toset([for alarm in aws_cloudwatch_metric_alarm.cache : alarm.dimensions.CacheClusterId]) == toset([
      "warmcast-cache-writer-0001-001", "warmcast-cache-writer-0001-002",
      "warmcast-cache-writer-0002-001", "warmcast-cache-writer-0002-002",
    ])
    error_message = "Every node of the cache is watched."
  }
  assert {
    condition = toset([for alarm in aws_cloudwatch_metric_alarm.cache : alarm.metric_name]) == toset([
      "Evictions", "DatabaseMemoryUsagePercentage", "EngineCPUUtilization", "ReplicationLag",
    ])
    error_message = "Evictions, memory, CPU and replication are watched."
  }
  assert {
    condition = alltrue([
      for alarm in concat(
        values(aws_cloudwatch_metric_alarm.log), values(aws_cloudwatch_metric_alarm.stream),
        values(aws_cloudwatch_metric_alarm.cache), values(aws_cloudwatch_metric_alarm.state_throttled),
      ) :
      alarm.alarm_actions == toset(var.alarm_actions) && contains(
        [for heading in regexall("(?m)^## (.*)$", file("../../../docs/handbook.md")) : replace(lower(heading[0]), " ", "-")],
        regex("docs/handbook.md#([a-z0-9-]+)$", alarm.alarm_description)[0],
      )
    ])
    error_message = "An alarm is not sent, or names a recipe that the handbook does not have."
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) >= 10
    error_message = "The dashboard has its panels."
  }
}

run "without_a_master_and_the_longest_name" {
  variables {
    name   = "abcdefghijklmnopqrstuvwxyz"
    master = null
  }
  override_data {
    target = data.aws_region.current
    values = { id = "ap-southeast-1" }
  }
  assert {
    condition     = flatten(jsondecode(aws_iam_policy.reader["filler"].policy).Statement[*].Action) == ["elasticache:Connect"]
    error_message = "There is nothing to fill from."
  }
  assert {
    # AWS: 64 characters of a role's name.
    condition     = alltrue([for name in output.account_wide_names : length(name) <= 64])
    error_message = "A name is too long: ${jsonencode(output.account_wide_names)}"
  }
}

run "with_a_password_and_shards" {
  variables {
    master = null
    stream = { name = "warmcast-eu", shards = 8, retention_hours = 48 }
    auth = {
      kind                = "password"
      user_group_id       = "ours"
      username            = "warmcast"
      password_secret_arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:cache-AbCdEf"
    }
  }
  assert {
    condition     = aws_kinesis_stream.this.shard_count == 8 && aws_kinesis_stream.this.stream_mode_details[0].stream_mode == "PROVISIONED"
    error_message = "The stream has the shards that were asked for."
  }
  assert {
    condition     = aws_elasticache_replication_group.this.user_group_ids == toset(["ours"]) && length(aws_elasticache_user.this) == 0
    error_message = "The user group is the caller's."
  }
  assert {
    condition     = jsondecode(output.container_definitions)[1].secrets[0].name == "WARMCAST__REDIS__PASSWORD"
    error_message = "The password reaches the daemon from its store."
  }
  assert {
    condition     = !strcontains(output.role_policy, "elasticache:Connect") && !strcontains(output.role_policy, "table/profiles")
    error_message = "It may do no more than it has to."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.stream["iterator-age-page"].threshold == 24 * 3600 * 1000
    error_message = "Half of the stream's 48 hours raise an alarm."
  }
}
