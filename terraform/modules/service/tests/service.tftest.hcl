# A fleet's workers, on either kind of machine.

mock_provider "aws" {
  source = "../../testing"
}

variables {
  name        = "warmcast-aggregator"
  daemon      = "aggregator"
  region      = "eu-west-1"
  config_toml = "[log]\nformat = \"json\"\n"
  environment = { WARMCAST__BATCH__LINGER_MS = "20", WARMCAST__LOG__LEVEL = "info" }
  kms_key_arn = "arn:aws:kms:eu-west-1:111122223333:key/00000000-0000-0000-0000-00000000own1"
  statements = [
    { Effect = "Allow", Action = ["dynamodb:GetItem"], Resource = ["arn:aws:dynamodb:eu-west-1:111122223333:table/t"] },
  ]
  compute = {
    kind                 = "fargate"
    image                = "111122223333.dkr.ecr.eu-west-1.amazonaws.com/warmcast:1"
    image_repository_arn = "arn:aws:ecr:eu-west-1:111122223333:repository/warmcast"
    secrets_kms_key_arns = ["arn:aws:kms:eu-west-1:111122223333:key/secrets"]
  }
  network = { vpc_id = "vpc-1", subnet_ids = ["subnet-1", "subnet-2"] }
  scaling = {
    min                   = 2
    max                   = 8
    lag_seconds           = 15
    lag_seconds_much      = 300
    cpu_percent           = 60
    scale_in_cooldown_s   = 900
    scale_out_cooldown_s  = 180
    evaluation_periods    = 3
    instance_warmup_s     = 120
    scale_in_is_automatic = true
  }
}

run "on_fargate" {
  variables {
    secrets = { WARMCAST__REDIS__PASSWORD = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:cache-AbCdEf" }
  }
  assert {
    condition     = length(aws_ecs_service.this) == 1 && length(aws_autoscaling_group.this) == 0 && length(aws_launch_template.this) == 0
    error_message = "Fargate makes a service and no instances."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.this[0].container_definitions)[1].readonlyRootFilesystem && jsondecode(aws_ecs_task_definition.this[0].container_definitions)[0].readonlyRootFilesystem
    error_message = "Root file systems are read-only."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.this[0].container_definitions)[1].user == "65532:65532"
    error_message = "The daemon is not root."
  }
  assert {
    condition     = alltrue([for container in jsondecode(aws_ecs_task_definition.this[0].container_definitions) : contains(container.linuxParameters.capabilities.drop, "ALL")])
    error_message = "No container has a capability."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.this[0].container_definitions)[1].stopTimeout == 60
    error_message = "A stop has the time that was given."
  }
  assert {
    condition = jsondecode(aws_ecs_task_definition.this[0].container_definitions)[1].healthCheck.command == [
      "CMD", "/usr/bin/aggregator", "health", "--config", "/etc/warmcast/aggregator.toml",
    ]
    error_message = "The image has no shell: the program itself asks whether it is alive."
  }
  assert {
    condition = jsondecode(aws_ecs_task_definition.this[0].container_definitions)[0].environment == [
      { name = "WARMCAST_TOML", value = "[log]\nformat = \"json\"\n" },
    ]
    error_message = "The configuration reaches the container that writes it."
  }
  assert {
    condition = (
      aws_ecs_service.this[0].deployment_minimum_healthy_percent == 100 &&
      aws_ecs_service.this[0].deployment_circuit_breaker[0].enable &&
      aws_ecs_service.this[0].deployment_circuit_breaker[0].rollback
    )
    error_message = "A deployment never has fewer workers than before, and a bad one is taken back."
  }
  assert {
    condition     = aws_appautoscaling_target.this[0].resource_id == "service/made-here/warmcast-aggregator"
    error_message = "The service scales: ${aws_appautoscaling_target.this[0].resource_id}"
  }
  assert {
    condition = (
      aws_cloudwatch_metric_alarm.scale_out.metric_name == "lag" &&
      aws_cloudwatch_metric_alarm.scale_out.namespace == aws_cloudwatch_log_metric_filter.this["lag"].metric_transformation[0].namespace &&
      aws_cloudwatch_metric_alarm.scale_out.threshold == 15000 &&
      contains(aws_cloudwatch_metric_alarm.scale_out.alarm_actions, aws_appautoscaling_policy.lag[0].arn)
    )
    error_message = "It scales out by the lag that the log tells."
  }
  assert {
    condition = jsondecode(aws_ecs_task_definition.this[0].container_definitions)[1].secrets == [
      { name = "WARMCAST__REDIS__PASSWORD", valueFrom = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:cache-AbCdEf" },
    ]
    error_message = "The secret is named, and its value is not here."
  }
  assert {
    condition = toset(flatten(jsondecode(aws_iam_role_policy.execution[0].policy).Statement[*].Action)) == toset([
      "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetAuthorizationToken", "ecr:GetDownloadUrlForLayer",
      "kms:Decrypt", "logs:CreateLogStream", "logs:PutLogEvents", "secretsmanager:GetSecretValue",
    ])
    error_message = "Starting a task takes its image, its log and its secrets."
  }
  assert {
    # Whatever has no resource, or every resource, is the registry's token, which AWS gives for all of it.
    condition = [
      for statement in jsondecode(aws_iam_role_policy.execution[0].policy).Statement : statement.Action if contains(statement.Resource, "*")
    ] == [["ecr:GetAuthorizationToken"]]
    error_message = "The start role is bound to what it starts."
  }
  assert {
    condition     = jsondecode(aws_iam_role.this.assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"] == "111122223333"
    error_message = "ECS assumes the role for this account only."
  }
  assert {
    # Metrics are made of what the daemons log: the words are theirs.
    condition = length(aws_cloudwatch_log_metric_filter.this) >= 5 && alltrue([
      for file, words in {
        "../../../common/src/dead_letter/quarantine.rs"  = ["\"set aside as a dead letter\""]
        "../../../common/src/consumer/catch_up.rs"       = ["\"gap: "]
        "../../../common/src/consumer/reader.rs"         = ["\"gap: "]
        "../../../aggregator/src/stats.rs"               = ["\"stats\"", "lag_ms = ", "shards = ", "regions_not_answering = "]
        "../../../cache-writer/src/stats.rs"             = ["\"stats\"", "lag_ms = ", "shards = ", "watermark_age_ms,"]
        "../../../cache-writer/src/verify/continuous.rs" = ["\"an entry is wrong and stays so: "]
      } : alltrue([for word in words : strcontains(file(file), word)])
    ])
    error_message = "A daemon does not log what a metric is made of."
  }
  assert {
    condition     = aws_ecs_service.this[0].deployment_minimum_healthy_percent == 100 && aws_ecs_service.this[0].deployment_maximum_percent == 150
    error_message = "An upgrade adds workers before it takes any away."
  }
  assert {
    condition     = aws_iam_role.this.name == "warmcast-aggregator-eu-west-1" && aws_iam_role.execution[0].name == "warmcast-aggregator-eu-west-1-start"
    error_message = "Roles are the account's: they have the region in their names."
  }
  assert {
    condition     = aws_cloudwatch_log_group.this.kms_key_id == var.kms_key_arn
    error_message = "The log is encrypted with the fleet's key."
  }
}

run "a_single_worker" {
  variables {
    scaling = merge(var.scaling, { min = 1, max = 1 })
  }
  assert {
    # AWS: what is above 100 percent is rounded down, what stays up is rounded up.
    condition     = floor(var.scaling.min * aws_ecs_service.this[0].deployment_maximum_percent / 100) >= 2
    error_message = "There is no room for the next one: an upgrade would stand still."
  }
}

run "on_ec2" {
  variables {
    compute = {
      kind          = "ec2"
      ami_id        = "ami-0123456789abcdef0"
      deb_url       = "https://packages.example.com/warmcast_1_arm64.deb"
      deb_sha256    = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
      agent_deb_url = "https://packages.example.com/agent.deb"
    }
  }
  assert {
    condition     = length(aws_ecs_service.this) == 0 && length(aws_ecs_task_definition.this) == 0 && length(aws_autoscaling_group.this) == 1
    error_message = "EC2 makes instances and no service."
  }
  assert {
    condition     = aws_launch_template.this[0].metadata_options[0].http_tokens == "required" && aws_launch_template.this[0].metadata_options[0].http_put_response_hop_limit == 1
    error_message = "Instances have IMDSv2 only."
  }
  assert {
    condition     = aws_launch_template.this[0].block_device_mappings[0].ebs[0].encrypted == "true"
    error_message = "Disks are encrypted."
  }
  assert {
    condition     = aws_autoscaling_group.this[0].instance_refresh[0].preferences[0].min_healthy_percentage == 100
    error_message = "A refresh never has fewer workers than before."
  }
  assert {
    condition     = aws_launch_template.this[0].block_device_mappings[0].device_name == "/dev/sda1"
    error_message = "The disk is the image's root."
  }
  assert {
    condition = one(aws_autoscaling_group.this[0].initial_lifecycle_hook).default_result == "ABANDON" && alltrue([
      for words in [
        "\nresult=ABANDON\ntrap 'tell_group \"$result\"' EXIT\n", "\nresult=CONTINUE\n",
        "&AutoScalingGroupName=${aws_autoscaling_group.this[0].name}&LifecycleHookName=${one(aws_autoscaling_group.this[0].initial_lifecycle_hook).name}\"",
        "/security-credentials/${aws_iam_role.this.name}\"", "\"https://autoscaling.eu-west-1.amazonaws.com/\"",
      ] : strcontains(output.user_data, words)
    ])
    error_message = "An instance is in service before its daemon is in the fleet: ${output.user_data}"
  }
  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.instance[0].policy).Statement : statement.Resource if contains(statement.Action, "autoscaling:CompleteLifecycleAction")
      ] == [
      ["arn:aws:autoscaling:eu-west-1:111122223333:autoScalingGroup:*:autoScalingGroupName/warmcast-aggregator"],
    ]
    error_message = "An instance tells its own group that it is there."
  }
  assert {
    condition     = aws_iam_instance_profile.this[0].name == "warmcast-aggregator-eu-west-1"
    error_message = "Profiles are the account's: they have the region in their names."
  }
  assert {
    condition     = aws_autoscaling_group.this[0].min_size == 2 && aws_autoscaling_group.this[0].max_size == 8
    error_message = "There are as many as were asked for."
  }
  assert {
    condition     = strcontains(output.user_data, "systemctl restart warmcast-aggregator") && strcontains(output.user_data, base64encode("[log]\nformat = \"json\"\n")) && strcontains(output.user_data, ">/etc/warmcast/aggregator.toml")
    error_message = "The configuration reaches the instance."
  }
  assert {
    condition     = strcontains(output.user_data, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  warmcast.deb' | sha256sum --check")
    error_message = "The package is checked before it is installed."
  }
  assert {
    condition     = strcontains(output.user_data, "\nEnvironment=\"WARMCAST__BATCH__LINGER_MS=20\"\nEnvironment=\"WARMCAST__LOG__LEVEL=info\"\nEND\n")
    error_message = "The environment reaches the unit: ${output.user_data}"
  }
  assert {
    condition     = contains(aws_cloudwatch_metric_alarm.scale_out.alarm_actions, aws_autoscaling_policy.lag[0].arn)
    error_message = "It scales out by the lag."
  }
  assert {
    condition     = jsondecode(aws_iam_role.this.assume_role_policy).Statement[0].Principal.Service == "ec2.amazonaws.com"
    error_message = "The role is the instances'."
  }
}

run "an_image_of_another_architecture_is_refused" {
  command = plan
  variables {
    compute = {
      kind          = "ec2"
      architecture  = "x86_64"
      ami_id        = "ami-0123456789abcdef0"
      deb_url       = "https://packages.example.com/warmcast_1_amd64.deb"
      deb_sha256    = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
      agent_deb_url = "https://packages.example.com/agent.deb"
    }
  }
  expect_failures = [data.aws_ami.this]
}

run "a_secret_on_ec2_is_refused" {
  command = plan
  variables {
    secrets = { WARMCAST__REDIS__PASSWORD = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:cache-AbCdEf" }
    compute = {
      kind          = "ec2"
      ami_id        = "ami-0123456789abcdef0"
      deb_url       = "https://packages.example.com/warmcast_1_arm64.deb"
      deb_sha256    = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
      agent_deb_url = "https://packages.example.com/agent.deb"
    }
  }
  expect_failures = [aws_launch_template.this]
}
