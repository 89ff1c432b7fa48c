"""A benchmark's page and Markdown, made of its result."""
