-- Somebody has seen to what was found to differ.
DELETE FROM tickwell.found_differences
