"""How the hypotheses of the headline fail, on the card: shares of them beside the same shares of the references. Pure."""

from dstrain.reporting.markdown import Markdown, code, percent, phrase, table
from dstrain.reporting.results import headline_row
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.scores import OutputRate

NAMES_OF_RATES = {
    "empty": "Empty",
    "loop": "End in one piece over and over",
    "copy": "Are their source",
    "wrong_script": "In another script than most references",
    "wrong_language": "In another language",
}
"""The rates in the order of the rows; those of unknown names are not shown."""


def build_outputs_table(record: RunRecord) -> Markdown | None:
    """A row for each rate; None where the evaluation recorded none."""
    row = headline_row(record)
    outputs = row.outputs if row else {}
    lines = [
        [name, percent(outputs[key].hypotheses), percent(outputs[key].references)]
        for key, name in NAMES_OF_RATES.items()
        if key in outputs
    ]
    return table(["Texts", "Hypotheses", "References"], lines) if lines else None


def describe_checked(record: RunRecord) -> str | None:
    """In what the hypotheses of the headline were looked at, in a phrase; None where the evaluation recorded no rates."""
    row = headline_row(record)
    if row is None or not row.outputs:
        return None
    script = row.outputs.get("wrong_script")
    if script is None:
        return "not made: the outputs of this task are no language"
    said = f"in another script than most references: {_both(script)}"
    if (language := row.outputs.get("wrong_language")) is not None:
        detector = row.signatures.get("wrong_language", "an unknown detector").partition("|")[0]
        return f"{said}; in another language, told by {detector}: {_both(language)}"
    return f"{said}; languages of one script were not distinguished"


def _both(rate: OutputRate) -> str:
    return f"{percent(rate.hypotheses)} (references {percent(rate.references)})"


def explain_outputs(record: RunRecord) -> list[Markdown]:
    """What the rates mean, and whether languages were looked at."""
    row = headline_row(record)
    if row is None or not row.outputs:
        return []
    sentences = [
        Markdown(
            "Shares of the texts of the evaluation reported at the top; the same marks in the references are no fault."
        )
    ]
    if "wrong_language" in row.outputs:
        signature = row.signatures.get("wrong_language", "unknown")
        sentences.append(phrase("Languages were distinguished by {}.", code(signature)))
    elif "wrong_script" in row.outputs:
        sentences.append(
            phrase(
                "Languages of one script were not distinguished: this needs {} and languages that it knows.",
                code("pip install 'dstrain[langid]'"),
            )
        )
    return sentences
