"""What an agent has in its hands to say things with, whether it runs here or in another process: the same for both."""
