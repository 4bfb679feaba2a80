-- How many differences of each place and source are on record.
SELECT place, source, count(*) FROM tickwell.found_differences GROUP BY place, source
