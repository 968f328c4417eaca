# On EC2: a launch template and an autoscaling group. The instance installs the .deb, whose systemd unit runs the daemon in
# its sandbox; for fleets that are bound by the network card or the CPU, or that pay for instances already.

# The root's device differs from one distribution to the next: Debian's is /dev/xvda, Ubuntu's /dev/sda1. A volume of the
# wrong name would be a second disk, and the root would be as the image has it: small, and perhaps not encrypted.
data "aws_ami" "this" {
  count = local.is_fargate ? 0 : 1

  filter {
    name   = "image-id"
    values = [var.compute.ami_id]
  }
  lifecycle {
    postcondition {
      condition     = self.architecture == var.compute.architecture
      error_message = "compute.ami_id is of ${self.architecture}, compute.architecture is ${var.compute.architecture}."
    }
  }
}

locals {
  launch_hook = "daemon-in-fleet"

  # Where the unit's lines go on an instance: a file, which the CloudWatch agent follows.
  log_file = "/var/log/warmcast/${var.daemon}.log"

  agent_config = jsonencode({
    agent = { region = var.region, run_as_user = "root" }
    logs = {
      logs_collected = { files = { collect_list = [{
        file_path       = local.log_file
        log_group_name  = aws_cloudwatch_log_group.this.name
        log_stream_name = "${var.daemon}/{instance_id}"
      }] } }
    }
  })

  user_data = local.is_fargate ? null : templatefile("${path.module}/templates/user_data.sh.tftpl", {
    agent_config       = local.agent_config
    agent_deb_url      = var.compute.agent_deb_url
    config             = local.config
    config_toml        = var.config_toml
    daemon             = var.daemon
    deb_sha256         = var.compute.deb_sha256
    deb_url            = var.compute.deb_url
    group              = var.name
    hook               = local.launch_hook
    log_file           = local.log_file
    log_file_mib_max   = 256
    region             = var.region
    role               = aws_iam_role.this.name
    autoscaling_host   = "autoscaling.${var.region}.${data.aws_partition.current.dns_suffix}"
    stop_timeout_s     = var.compute.stop_timeout_s
    systemd_unit       = "warmcast-${var.daemon}"
    systemd_unit_lines = [for name in sort(keys(var.environment)) : "Environment=\"${name}=${replace(var.environment[name], "%", "%%")}\""]
  })
}

resource "aws_iam_instance_profile" "this" {
  count = local.is_fargate ? 0 : 1
  name  = local.account_wide_name
  role  = aws_iam_role.this.name
  tags  = var.tags
}

resource "aws_iam_role_policy" "instance" {
  count = local.is_fargate ? 0 : 1
  name  = "instance"
  role  = aws_iam_role.this.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.this.arn}:*"]
      },
      {
        # AWS: what stands for `*` is made up with the group, which needs this policy.
        Effect   = "Allow"
        Action   = ["autoscaling:CompleteLifecycleAction"]
        Resource = ["arn:${local.partition}:autoscaling:${var.region}:${local.account}:autoScalingGroup:*:autoScalingGroupName/${var.name}"]
      },
    ]
  })
}

resource "aws_launch_template" "this" {
  count                  = local.is_fargate ? 0 : 1
  name                   = var.name
  description            = "${var.daemon} from its .deb"
  image_id               = var.compute.ami_id
  instance_type          = var.compute.instance_type
  update_default_version = true
  ebs_optimized          = true
  user_data              = base64encode(local.user_data)
  tags                   = var.tags

  iam_instance_profile {
    arn = aws_iam_instance_profile.this[0].arn
  }
  # IMDSv2 only, and no container on the instance reaches it.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  monitoring {
    enabled = true
  }
  block_device_mappings {
    device_name = data.aws_ami.this[0].root_device_name
    ebs {
      encrypted             = true
      volume_type           = "gp3"
      volume_size           = var.compute.disk_gib
      delete_on_termination = true
    }
  }
  network_interfaces {
    associate_public_ip_address = var.network.assign_public_ip
    delete_on_termination       = true
    security_groups             = concat([aws_security_group.this.id], var.network.security_group_ids)
  }
  tag_specifications {
    resource_type = "instance"
    tags          = merge(var.tags, { Name = var.name })
  }
  tag_specifications {
    resource_type = "volume"
    tags          = merge(var.tags, { Name = var.name })
  }

  lifecycle {
    precondition {
      # AWS: user data, 16 KB before base64.
      condition     = length(coalesce(local.user_data, "")) <= 16384
      error_message = "The user data is larger than 16 KB: fewer tables with filters, or Fargate."
    }
    precondition {
      condition     = length(var.secrets) == 0
      error_message = "Secrets are for Fargate: on EC2 use auth.kind = \"iam\", which has none, or bring an image that has them."
    }
  }
}

resource "aws_autoscaling_group" "this" {
  count                     = local.is_fargate ? 0 : 1
  name                      = var.name
  min_size                  = var.scaling.min
  max_size                  = var.scaling.max
  vpc_zone_identifier       = var.network.subnet_ids
  health_check_type         = "EC2"
  health_check_grace_period = var.scaling.instance_warmup_s
  default_instance_warmup   = var.scaling.instance_warmup_s
  enabled_metrics           = ["GroupInServiceInstances", "GroupDesiredCapacity"]

  launch_template {
    id      = aws_launch_template.this[0].id
    version = aws_launch_template.this[0].latest_version
  }
  # An instance is in service once its daemon is in its fleet (the end of the user data). One that does not come that far is
  # ended, and no worker made room for it. Starting waits for what the daemon needs, so it has time.
  wait_for_capacity_timeout = "20m"
  initial_lifecycle_hook {
    name                 = local.launch_hook
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    default_result       = "ABANDON"
    heartbeat_timeout    = 900
  }
  # One more worker first, then one less: leases are handed over, and nothing is read late.
  instance_maintenance_policy {
    min_healthy_percentage = 100
    max_healthy_percentage = local.deployment_percent_max
  }
  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = local.deployment_percent_max
      auto_rollback          = true
      instance_warmup        = var.scaling.instance_warmup_s
    }
  }
  dynamic "tag" {
    for_each = merge(var.tags, { Name = var.name })
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }
  lifecycle {
    # Autoscaling's.
    ignore_changes = [desired_capacity]
  }
  depends_on = [aws_iam_role_policy.this, aws_iam_role_policy.instance]
}
