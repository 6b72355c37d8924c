"""What is drawn from and measured against: manifests of pictures and sounds."""
