"""Views: features by the sources that they come from, as clients of Feast name them.

Every feature is in one view, which has the name of a source. A stored feature is in the view of its
source, a derived one in that of the source that it sums over, or else of its first part. A service
names all active features of one kind of entity.
"""

from __future__ import annotations

from registry.definitions import SET_PREFIX, FeatureVersion
from serving.errors import InvalidRequest, RetiredFeature, UnknownFeature
from serving.features.lookup import Names

BETWEEN_FIELDS = "-"
"""What stands between the key fields in the name of a service; no field has it in its name."""


class Views:
    """The views and services of one catalog.

    `features` has the active features of each view, `services` those of each kind of entity, both
    in the order of the catalog.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self.features: dict[str, list[FeatureVersion]] = {
            name: [] for name in names.catalog.sources
        }
        self.services: dict[str, list[FeatureVersion]] = {}
        for name in names.catalog.active:
            feature = names.feature(name)
            self.features[self.view_of(feature)].append(feature)
            service = BETWEEN_FIELDS.join(feature.entity)
            self.services.setdefault(service, []).append(feature)

    def view_of(self, feature: FeatureVersion) -> str:
        """The view that a feature is in."""
        view = feature.source or feature.over
        if view is None:
            first = next(iter(self.names.derived[feature.ref].parts.values()))
            view = first.source
        assert view is not None, "the parts of a derived feature are stored ones"
        return view

    def feature(self, reference: str) -> tuple[str, str, FeatureVersion]:
        """View, name and version that `view:name` means; the name may be an alias or a pin.

        Raises `InvalidRequest` for text of another form, and `UnknownFeature`.
        """
        view, colon, name = reference.partition(":")
        view, at, version = view.partition("@")
        if not colon:
            raise InvalidRequest(f"{reference!r} names no view{self._hint(reference)}")
        if version.lower() not in ("", "latest"):
            raise UnknownFeature(
                f"views have no versions, so there is no {view}{at}{version}: pin the feature, as "
                f"in {view}:{name}@1.0.0",
                feature=reference,
            )
        if view not in self.features:
            views = ", ".join(self.features)
            raise UnknownFeature(
                f"there is no view {view!r}, only {views}{self._hint(name)}", feature=reference
            )
        feature = self.names.feature(name)
        if self.view_of(feature) != view:
            raise UnknownFeature(
                f"{name} is not in the view {view}{self._hint(name)}", feature=reference
            )
        return view, name, feature

    def service(self, name: str) -> list[FeatureVersion]:
        """The features of a service, or of a set. Raises `UnknownFeature` and `RetiredFeature`."""
        if name.startswith(SET_PREFIX):
            return list(self.names.of_set(name).values())
        features = self.services.get(name)
        if features is None:
            services = ", ".join(self.services)
            raise UnknownFeature(
                f"there is no feature service {name!r}, only {services}: each has all features of "
                "that kind of entity",
                feature_service=name,
            )
        return features

    def _hint(self, name: str) -> str:
        """What to ask for in place of a name that stood without its view, or in another one."""
        try:
            return f": ask for {self.view_of(self.names.feature(name))}:{name}"
        except (UnknownFeature, RetiredFeature):
            return ": name features as view:feature"
