"""A program in Feast's environment: a line of JSON asks its SDK, a line of JSON answers.

It imports nothing of ours. Floats are answered as their bits in hexadecimal, and everything else as
its type and its text, so that an integer does not pass for a float.
"""

import json
import sys
from typing import Any


def plain(value: Any) -> Any:
    """A value that tells a float from everything else, to the bit."""
    if value is None or isinstance(value, str):
        return value
    return value.hex() if type(value) is float else f"{type(value).__name__} {value!r}"


def online(store: Any, question: Any) -> Any:
    """`get_online_features`, with the statuses that the response keeps beside the values."""
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    features = question.get("features")
    if "service" in question:
        features = store.get_feature_service(question["service"])
    response = store.get_online_features(
        features=features,
        entity_rows=question["rows"],
        full_feature_names=question.get("full", False),
    )
    names = response.proto.metadata.feature_names.val
    return {
        "values": {name: list(map(plain, of)) for name, of in response.to_dict().items()},
        "statuses": {
            name: [FieldStatus.Name(status) for status in vector.statuses]
            for name, vector in zip(names, response.proto.results, strict=True)
        },
        "columns": list(response.to_df().columns),
    }


def online_read(store: Any, question: Any) -> Any:
    """What Feast's earlier clients ask: one view, by keys; a list of moments and values."""
    from feast.infra.online_stores.remote import RemoteOnlineStore
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    view = store.get_feature_view(question["view"])
    keys = [
        EntityKey(join_keys=list(row), entity_values=[Value(string_val=v) for v in row.values()])
        for row in question["rows"]
    ]
    read = RemoteOnlineStore().online_read(store.config, view, keys, question["features"])
    return [
        {
            "time": None if time is None else time.isoformat(),
            "values": {
                name: value.double_val.hex() if value.WhichOneof("val") else None
                for name, value in (values or {}).items()
            },
            "kinds": sorted({str(value.WhichOneof("val")) for value in (values or {}).values()}),
        }
        for time, values in read
    ]


def listed(store: Any, question: Any) -> Any:
    """What the registry says."""
    return {
        "views": {
            view.name: {
                "entities": view.entities,
                "features": {field.name: str(field.dtype) for field in view.features},
                "keys": [field.name for field in view.entity_columns],
                "ttl": None if view.ttl is None else view.ttl.total_seconds(),
                "tags": {field.name: field.tags for field in view.features},
            }
            for view in store.list_feature_views()
        },
        "entities": {
            one.name: [one.join_key, one.value_type.name] for one in store.list_entities()
        },
        "services": {
            one.name: [
                f"{projection.name}:{field.name}"
                for projection in one.feature_view_projections
                for field in projection.features
            ]
            for one in store.list_feature_services()
        },
        "projects": [project.name for project in store.list_projects()],
    }


def main() -> None:
    from feast import FeatureStore

    store = FeatureStore(repo_path=sys.argv[1])
    kinds = {"online": online, "online_read": online_read, "listed": listed}
    answers, sys.stdout = sys.stdout, sys.stderr  # what Feast prints is no answer
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = (
                "loaded"
                if question["kind"] == "loaded"
                else kinds[question["kind"]](store, question)
            )
        except Exception as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
