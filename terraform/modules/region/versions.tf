# Nothing here needs a later provider: 5.73 is the first that knows Valkey, and 6 reads all of it as well.
terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.73, < 7"
    }
  }
}
