"""Learning from a teacher's probabilities: of the student's own answers, or of the noisy text."""
