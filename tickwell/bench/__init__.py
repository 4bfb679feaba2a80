"""`tickwell bench`: how fast the own stack answers, and from where.

Processes of their own ask over plain connections (`load`, `connection`), count what they see in
bounded memory (`tally`), and the figures are put beside targets (`figures`).
"""
