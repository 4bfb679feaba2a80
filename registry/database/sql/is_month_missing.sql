-- Whether a month has no partition, though the default one has no row of it.
SELECT to_regclass(:name) IS NULL AND NOT EXISTS (
    SELECT FROM tickwell.feature_rows_default
    WHERE event_time >= :low AND event_time < :high
)
