# 5.100 is what the tests run with. It knows cache users of the engine Valkey, which 5.73, the first with Valkey, does not;
# 6 reads all of it as well.
terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }
}
