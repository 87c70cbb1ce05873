"""What an answer is worth: the tasks and their prompts, finding an answer in text, comparing two answers,
reports."""
