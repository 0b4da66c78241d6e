"""What the providers that use the Anthropic SDK share."""
