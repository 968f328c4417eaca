# The region's stream. Cache-writers poll it: they need no enhanced fan-out, which is paid by the consumer, the shard and
# the gigabyte. Other consumers may register themselves.

resource "aws_kinesis_stream" "this" {
  name             = var.stream.name
  shard_count      = var.stream.shards
  retention_period = var.stream.retention_hours
  encryption_type  = "KMS"
  kms_key_id       = local.kms_key_arn
  tags             = var.tags

  stream_mode_details {
    stream_mode = var.stream.shards == null ? "ON_DEMAND" : "PROVISIONED"
  }
}
