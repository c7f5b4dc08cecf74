"""What a panel is: a question in words, its queries, and the unit of their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import common as parts
from grafana_foundation_sdk.builders import dashboard as building
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE: Final = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH: Final = 24
TAG: Final = "modelport"

# Units as Grafana names them.
SECONDS: Final = "s"
PER_SECOND: Final = "reqps"
COUNT_PER_SECOND: Final = "cps"
TOKENS_PER_SECOND: Final = "suffix: tok/s"
RATIO: Final = "percentunit"
COUNT: Final = "short"
BYTES: Final = "bytes"

Levels = Mapping[float, str]  # from this value on, this colour
Panels = Builder[dashboard.Panel]


@dataclass(frozen=True, slots=True)
class Query:
    """One question to Prometheus, and what its series are called: `{{label}}` stands for a label's value."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, its question (one value now for each row), and the unit."""

    heading: str
    expression: str
    unit: str
    levels: Levels | None = None


def thresholds(levels: Levels | None) -> building.ThresholdsConfig:
    """Green below the first level."""
    steps = [dashboard.Threshold(None, "green")]
    steps += [dashboard.Threshold(value, colour) for value, colour in sorted((levels or {}).items())]
    return building.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _legend(calculations: Sequence[str]) -> parts.VizLegendOptions:
    return (
        parts.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(list(calculations))
    )


def curves(
    title: str,
    says: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    levels: Levels | None = None,
    is_stacked: bool = False,
    highest: float | None = None,
) -> Panels:
    """Curves over time. `levels` are drawn as lines; `highest` is the end of the axis where there is one."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(8)
        .line_width(1)
        .fill_opacity(25 if is_stacked else 5)
        .show_points(common.VisibilityMode.AUTO)
        .legend(_legend(("mean", "max", "lastNotNull")))
        .tooltip(parts.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        .thresholds(thresholds(levels))
    )
    if levels:
        panel.thresholds_style(parts.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED))
    if is_stacked:
        panel.stacking(parts.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if highest is not None:
        panel.max(highest)
    for ref, query in zip("ABCDEFGHIJ", queries, strict=False):
        panel.with_target(
            prometheus.Dataquery()
            .expr(query.expression)
            .legend_format(query.legend)
            .ref_id(ref)
            .range()
            .datasource(SOURCE)
        )
    return panel


def figure(
    title: str, says: str, unit: str, expression: str, *, width: int = 4, levels: Levels | None = None, empty: str = "–"
) -> Panels:
    """One figure with its colour. `empty`: what stands there while the expression has no value."""
    return (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(4)
        .no_value(empty)
        .thresholds(thresholds(levels))
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(parts.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .with_target(
            prometheus.Dataquery().expr(expression).legend_format(title).ref_id("A").range().datasource(SOURCE)
        )
    )


def states(title: str, says: str, query: Query, names: Mapping[int, tuple[str, str]], *, width: int = 24) -> Panels:
    """Bars over time, one for each series. `names`: what each value is called, and its colour."""
    options = {
        str(value): dashboard.ValueMappingResult(text=text, color=colour, index=index)
        for index, (value, (text, colour)) in enumerate(names.items())
    }
    return (
        statetimeline.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit("none")
        .span(width)
        .height(8)
        .thresholds(thresholds(None))
        .mappings([dashboard.ValueMap(options=options)])
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .show_value(common.VisibilityMode.AUTO)
        .legend(parts.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).show_legend(True))
        .with_target(
            prometheus.Dataquery()
            .expr(query.expression)
            .legend_format(query.legend)
            .ref_id("A")
            .range()
            .datasource(SOURCE)
        )
    )


def rows(
    title: str, says: str, labels: Mapping[str, str], *columns: Column, width: int = 24, height: int = 8
) -> Panels:
    """A table of what holds now, or held over the time that is shown. `labels`: those that name a row, with their
    headings.
    """
    panel = (
        table.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .span(width)
        .height(height)
        .no_value("–")
        .unit(columns[0].unit)
        .thresholds(thresholds(None))
    )
    renamed: dict[str, str] = dict(labels)
    for ref, column in zip("ABCDEFGHIJ", columns, strict=False):
        # With one query the column is called `Value`, with several `Value #A`, `Value #B`.
        renamed["Value" if len(columns) == 1 else f"Value #{ref}"] = column.heading
        panel.with_target(
            prometheus.Dataquery()
            .expr(column.expression)
            .legend_format("")
            .ref_id(ref)
            .instant()
            .format(PromQueryFormat.TABLE)
            .datasource(SOURCE)
        )
        properties = [dashboard.DynamicConfigValue("unit", column.unit)]
        if column.levels:
            properties += [
                dashboard.DynamicConfigValue("thresholds", thresholds(column.levels).build()),
                dashboard.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}),
            ]
        panel.override_by_name(column.heading, properties)
    shown = [*labels, *(name for name in renamed if name not in labels)]
    organized: dict[str, Any] = {
        "excludeByName": {"Time": True},
        "indexByName": {name: index for index, name in enumerate(shown)},
        "renameByName": renamed,
    }
    return panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={})).with_transformation(
        dashboard.DataTransformerConfig(id_val="organize", options=organized)
    )


def _choice(name: str, label: str, says: str, query: str, *, is_single: bool = False) -> building.QueryVariable:
    variable = (
        building.QueryVariable(name)
        .label(label)
        .description(says)
        .datasource(SOURCE)
        .query({"query": query, "refId": f"variable-{name}"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )
    if is_single:
        return variable
    everything = dashboard.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).all_value(".*").current(everything)


VARIABLES: Final[Mapping[str, Builder[dashboard.VariableModel]]] = {
    "instance": _choice(
        "instance",
        "Gateway",
        "The gateways, by the address that is scraped",
        "label_values(modelport_build_info, instance)",
    ),
    "model": _choice(
        "model",
        "Model",
        "Public names that were asked for",
        'label_values(gen_ai_server_request_duration_seconds_count{instance=~"$instance"}, gen_ai_request_model)',
    ),
    "backend": _choice(
        "backend",
        "Backend",
        "Engines, as the configuration names them",
        'label_values(modelport_backend_state{instance=~"$instance"}, modelport_backend)',
    ),
    "key": _choice(
        "key",
        "Key",
        "Keys of clients, by their names",
        'label_values(modelport_key_requests_total{instance=~"$instance"}, key)',
    ),
    "pair": _choice(
        "pair",
        "Pair",
        "A base and what was tuned from it, as the configuration has them under `pairs`",
        'label_values(modelport_pair_info{instance=~"$instance"}, pair)',
        is_single=True,
    ),
}


def page(
    name: str, title: str, says: str, variables: Sequence[str], sections: Mapping[str, Sequence[Panels]]
) -> dashboard.Dashboard:
    """A dashboard with its sections. `name`: of its file; `variables`: of VARIABLES, beside the data source's."""
    built = (
        building.Dashboard(f"Modelport / {title}")
        .uid(f"modelport-{name}")
        .description(says)
        .tags([TAG])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .editable()
        .annotations([])
        .with_variable(building.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .link(
            building.DashboardLink("Modelport")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
        )
    )
    for variable in variables:
        built.with_variable(VARIABLES[variable])
    numbers = iter(range(1, 1000))
    for heading, panels in sections.items():
        built.with_row(building.Row(heading).id(next(numbers)))
        for panel in panels:
            built.with_panel(_Numbered(panel, next(numbers)))
    return built.build()


@dataclass(frozen=True, slots=True)
class _Numbered(Builder[dashboard.Panel]):
    panel: Panels
    number: int

    def build(self) -> dashboard.Panel:
        panel = self.panel.build()
        panel.id_val = self.number
        return panel
