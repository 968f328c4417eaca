# On Fargate: a cluster, a task definition, a service.

resource "aws_ecs_cluster" "this" {
  count = local.is_fargate && var.compute.cluster_arn == null ? 1 : 0
  name  = var.name
  tags  = var.tags

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

locals {
  cluster_arn  = local.is_fargate ? coalesce(var.compute.cluster_arn, one(aws_ecs_cluster.this[*].arn)) : null
  cluster_name = local.is_fargate ? element(split("/", local.cluster_arn), length(split("/", local.cluster_arn)) - 1) : null

  log_configuration = { for daemon in ["config", var.daemon] : daemon => {
    logDriver = "awslogs"
    options = {
      awslogs-group         = aws_cloudwatch_log_group.this.name
      awslogs-region        = var.region
      awslogs-stream-prefix = daemon
      # A log service that does not answer holds up no worker: lines are dropped instead.
      mode            = "non-blocking"
      max-buffer-size = "8m"
    }
  } }

  # Fargate has no configuration files. This container writes the one there is, and ends, before the daemon starts. It is
  # root, as only root may write to a fresh volume, and has no capability.
  config_container = {
    name                   = "config"
    image                  = var.compute.config_image
    essential              = false
    entryPoint             = ["sh", "-c"]
    command                = ["umask 022 && printf %s \"$WARMCAST_TOML\" > ${local.config}"]
    environment            = [{ name = "WARMCAST_TOML", value = var.config_toml }]
    readonlyRootFilesystem = true
    linuxParameters        = { capabilities = { drop = ["ALL"] } }
    mountPoints            = [{ sourceVolume = "config", containerPath = "/etc/warmcast", readOnly = false }]
    logConfiguration       = local.log_configuration["config"]
  }

  daemon_container = {
    name                   = var.daemon
    image                  = var.compute.image
    essential              = true
    entryPoint             = [local.program]
    command                = ["run", "--config", local.config]
    environment            = [for name in sort(keys(var.environment)) : { name = name, value = var.environment[name] }]
    secrets                = [for name in sort(keys(var.secrets)) : { name = name, valueFrom = var.secrets[name] }]
    user                   = var.compute.user
    readonlyRootFilesystem = true
    linuxParameters        = { capabilities = { drop = ["ALL"] }, initProcessEnabled = false }
    mountPoints            = [{ sourceVolume = "config", containerPath = "/etc/warmcast", readOnly = true }]
    dependsOn              = [{ containerName = "config", condition = "SUCCESS" }]
    # Connections to every node of the cache and every region; far below it, but the default of 1,024 is near.
    ulimits = [{ name = "nofile", softLimit = 65536, hardLimit = 65536 }]
    # A stop drains within `shutdown.deadline_ms`; SIGKILL comes well after that.
    stopTimeout = var.compute.stop_timeout_s
    # Alive, not ready: a region that is cut off, or a worker that is behind, is no reason for a restart.
    healthCheck = {
      command     = coalesce(var.compute.health_check_command, ["CMD", local.program, "health", "--config", local.config])
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 60
    }
    logConfiguration = local.log_configuration[var.daemon]
  }
}

resource "aws_ecs_task_definition" "this" {
  count                    = local.is_fargate ? 1 : 0
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.compute.cpu
  memory                   = var.compute.memory_mib
  execution_role_arn       = aws_iam_role.execution[0].arn
  task_role_arn            = aws_iam_role.this.arn
  tags                     = var.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.compute.architecture == "arm64" ? "ARM64" : "X86_64"
  }
  # Empty, on the task's own encrypted disk.
  volume {
    name = "config"
  }
  container_definitions = jsonencode([local.config_container, local.daemon_container])
}

resource "aws_ecs_service" "this" {
  count                   = local.is_fargate ? 1 : 0
  name                    = var.name
  cluster                 = local.cluster_arn
  task_definition         = aws_ecs_task_definition.this[0].arn
  desired_count           = var.scaling.min
  launch_type             = "FARGATE"
  platform_version        = "LATEST"
  propagate_tags          = "SERVICE"
  enable_ecs_managed_tags = true
  enable_execute_command  = false
  tags                    = var.tags

  # One more worker first, then one less: leases are handed over, and nothing is read late.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = local.deployment_percent_max

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  network_configuration {
    subnets          = var.network.subnet_ids
    security_groups  = concat([aws_security_group.this.id], var.network.security_group_ids)
    assign_public_ip = var.network.assign_public_ip
  }
  lifecycle {
    # Autoscaling's.
    ignore_changes = [desired_count]
  }
  # A task without its rights would fail, and the circuit would break.
  depends_on = [aws_iam_role_policy.this, aws_iam_role_policy.execution]
}

# What ECS itself may do to start a task: fetch the image, write the log, read the secrets.

resource "aws_iam_role" "execution" {
  count                = local.is_fargate ? 1 : 0
  name                 = "${local.account_wide_name}-start"
  description          = "What ECS does to start ${var.name}'s tasks"
  permissions_boundary = var.permissions_boundary_arn
  tags                 = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Allow"
        Principal = { Service = "ecs-tasks.amazonaws.com" }
        Action    = "sts:AssumeRole"
        Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
      },
    ]
  })
}

locals {
  repository_arn = var.compute.image_repository_arn
  secret_arns    = distinct(values(var.secrets))

  execution_statements = concat(
    [
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.this.arn}:*"]
      },
    ],
    [for arn in local.repository_arn == null ? [] : [local.repository_arn] :
      {
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = [arn]
      }
    ],
    [for arn in local.repository_arn == null ? [] : [local.repository_arn] :
      {
        # AWS: this action knows no resources. The token opens what the statement above names.
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = ["*"]
      }
    ],
    [for arn in local.secret_arns :
      {
        Effect   = "Allow"
        Action   = [strcontains(arn, ":ssm:") ? "ssm:GetParameters" : "secretsmanager:GetSecretValue"]
        Resource = [arn]
      }
    ],
    [for arn in length(local.secret_arns) == 0 ? [] : var.compute.secrets_kms_key_arns :
      {
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = [arn]
        Condition = { StringEquals = { "kms:ViaService" = [
          "secretsmanager.${var.region}.amazonaws.com", "ssm.${var.region}.amazonaws.com",
        ] } }
      }
    ],
  )
}

resource "aws_iam_role_policy" "execution" {
  count  = local.is_fargate ? 1 : 0
  name   = "start"
  role   = aws_iam_role.execution[0].id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.execution_statements })
}
