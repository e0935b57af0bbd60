"""Time to first token after the end of speech, of listening and of the whole clip: `ltbm bench listen`."""
