-- Counts the days of all rows, once: those of rows that were stored before days were counted.
INSERT INTO tickwell.day_changes (source, day, writer, topic_id, partition, changes)
SELECT schema.source, date '1970-01-01' + found.number, 'scan',
    '00000000-0000-0000-0000-000000000000', 0, 1
FROM (
    SELECT DISTINCT schema_id,
        ((event_time - CASE WHEN event_time < 0 THEN %(day)s - 1 ELSE 0 END) / %(day)s)::integer
            AS number
    FROM tickwell.feature_rows
) AS found
JOIN tickwell.row_schemas AS schema ON schema.id = abs(found.schema_id)
GROUP BY schema.source, found.number
ON CONFLICT DO NOTHING
