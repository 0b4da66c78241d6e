"""The code that the providers on the Anthropic SDK share."""
