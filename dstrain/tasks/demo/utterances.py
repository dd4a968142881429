"""Utterances to a voice assistant, each with its decoupled parse in the bracket form of MTOP (Li et al., EACL 2021).

Defines the templates and what is held back from training: a tenth of all pairs of neighbouring fillers, whatever is
between them; if a template has one filler only, a tenth of the pairs of template and filler. No training utterance has
such a pair, every evaluation utterance has at least one. Every template and every filler, and so every word, may occur in
training. Knows nothing of rows or splits.
"""

import functools
import re
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from dstrain.tasks.demo.draw import is_held_back, pick

_CLOCK = re.compile(r"\b(\d+) ([ap]m)\b")
_SLOT = re.compile(r"\{(\w+)=([^}]*)\}")

FILLERS = {
    "name": "Anna|Tom|Maria|James|Sofia|Daniel|Mina|Lucas|Nora|Omar|Kate|Hugo|Emma|Felix|Grace|Henry|Iris|Jack|Laura|Peter",
    "relation": "brother|sister|mother|father|boss|doctor|neighbor|uncle|teacher",
    "app": "whatsapp|messenger|telegram|signal",
    "hour": "1|2|3|4|5|6|7|8|9|10|11|12",
    "half": "am|pm",
    "day": "today|tomorrow|on Monday|on Tuesday|on Wednesday|on Thursday|on Friday|on Saturday|on Sunday|next Monday"
    "|next Friday|every day",
    "when": "today|tonight|tomorrow|on Monday|on Tuesday|on Wednesday|on Thursday|on Friday|on Saturday|on Sunday"
    "|this evening|tomorrow morning|tomorrow night|next Monday|next Friday|this weekend",
    "past": "today|this morning|last night|yesterday|last week|on Monday|on Friday|on Sunday",
    "number": "2|3|4|5|6|8|10|12|15|20|25|30|40|45|50",
    "unit": "seconds|minutes|hours",
    "alarm": "school|work|medicine|gym|baking|travel",
    "place": "London|Paris|Seoul|Rome|Oslo|Lima|Cairo|Boston|Tokyo|Madrid|Dublin|Berlin|Cape Town|New York"
    "|San Diego|Hong Kong",
    "weather": "rain|snow|storm|freeze|hail",
    "condition": "cold|warm|windy|humid|sunny|foggy",
    "genre": "jazz|rock|classical|country|folk|dance|soul|metal|reggae",
    "artist": "Adele|Queen|Prince|Bob Dylan|Nina Simone|Miles Davis|Ella Fitzgerald|Otis Redding|David Bowie"
    "|Madonna|Sting|Joan Baez|Ray Charles",
    "track": "yesterday|imagine|hello|blue moon|purple rain|moon river|summertime|let it be|stand by me|fever"
    "|sunny afternoon|space oddity|wild horses|autumn leaves",
    "todo": "buy milk|water the plants|pay the rent|feed the cat|book a flight|wash the car|do the dishes|clean the kitchen"
    "|return the books|take out the trash|walk the dog|charge the phone|order new shoes|pick up the kids",
    "content": "I am late|dinner is ready|the meeting is over|I will be home soon|the package is here|the bus is full"
    "|I need help|I miss you|the train is late|I am on my way|we need milk|the doctor called|the game starts soon",
}
"""Kind to the words that fill templates, separated by a bar."""

NESTED = {
    "relative": (("GET_CONTACT", "{CONTACT_RELATED=my} {TYPE_RELATION=@relation}"),),
    "errand": (
        ("SEND_MESSAGE", "text {RECIPIENT=@name} that {CONTENT_EXACT=@content}"),
        ("SEND_MESSAGE", "message {RECIPIENT=@name} on {NAME_APP=@app}"),
        ("CREATE_CALL", "call {CONTACT=@name}"),
        ("CREATE_CALL", "call {CONTACT=@name} on {NAME_APP=@app}"),
    ),
    "family_errand": (
        ("CREATE_CALL", "call {CONTACT=@relative}"),
        ("SEND_MESSAGE", "text {RECIPIENT=@relative} that {CONTENT_EXACT=@content}"),
    ),
}
"""Kind to fillers that are intents themselves, as (intent, template)."""

TEMPLATES = {
    "alarm": (
        ("CREATE_ALARM", "set an alarm {DATE_TIME=for @hour @half}"),
        ("CREATE_ALARM", "set an alarm {DATE_TIME=for @hour @half @day}"),
        ("CREATE_ALARM", "wake me up {DATE_TIME=at @hour @half @day}"),
        ("CREATE_ALARM", "set an alarm {DATE_TIME=for @hour @half} and another {DATE_TIME=for @hour @half}"),
        ("CREATE_ALARM", "set my {ALARM_NAME=@alarm} alarm {DATE_TIME=for @hour @half @day}"),
        ("DELETE_ALARM", "cancel the alarm {DATE_TIME=for @hour @half @day}"),
        ("DELETE_ALARM", "turn off my {ALARM_NAME=@alarm} alarm {DATE_TIME=@when}"),
        ("GET_ALARM", "what alarms do I have {DATE_TIME=@when}"),
        ("SNOOZE_ALARM", "snooze the alarm {DATE_TIME=for @number @unit}"),
    ),
    "timer": (
        ("CREATE_TIMER", "set a {METHOD_TIMER=timer} {DATE_TIME=for @number @unit}"),
        ("CREATE_TIMER", "start a {METHOD_TIMER=timer} of {DATE_TIME=@number @unit}"),
        (
            "CREATE_TIMER",
            "set a {METHOD_TIMER=timer} {DATE_TIME=for @number @unit} and another {DATE_TIME=for @number @unit}",
        ),
        ("ADD_TIME_TIMER", "add {DATE_TIME=@number @unit} to the {METHOD_TIMER=timer}"),
        ("SUBTRACT_TIME_TIMER", "take {DATE_TIME=@number @unit} off the {METHOD_TIMER=timer}"),
    ),
    "weather": (
        ("GET_WEATHER", "what is the weather in {LOCATION=@place} {DATE_TIME=@when}"),
        ("GET_WEATHER", "will it {WEATHER_ATTRIBUTE=@weather} in {LOCATION=@place} {DATE_TIME=@when}"),
        ("GET_WEATHER", "how {WEATHER_ATTRIBUTE=@condition} is it going to be {DATE_TIME=@when} in {LOCATION=@place}"),
        ("GET_WEATHER", "is it {WEATHER_ATTRIBUTE=@condition} in {LOCATION=@place}"),
        ("GET_WEATHER", "{DATE_TIME=@when} will it be {WEATHER_ATTRIBUTE=@condition} in {LOCATION=@place}"),
    ),
    "message": (
        ("SEND_MESSAGE", "text {RECIPIENT=@name} {CONTENT_EXACT=@content}"),
        ("SEND_MESSAGE", "tell {RECIPIENT=@name} that {CONTENT_EXACT=@content}"),
        ("SEND_MESSAGE", "tell {RECIPIENT=@name} and {RECIPIENT=@name} that {CONTENT_EXACT=@content}"),
        ("SEND_MESSAGE", "send {CONTENT_EXACT=@content} to {RECIPIENT=@name} on {NAME_APP=@app}"),
        ("GET_MESSAGE", "are there messages from {SENDER=@name}"),
        ("GET_MESSAGE", "did {SENDER=@name} text {RECIPIENT=me} {DATE_TIME=@past}"),
    ),
    "music": (
        ("PLAY_MUSIC", "play {MUSIC_ARTIST_NAME=@artist}"),
        ("PLAY_MUSIC", "play {MUSIC_TRACK_TITLE=@track} by {MUSIC_ARTIST_NAME=@artist}"),
        ("PLAY_MUSIC", "play some {MUSIC_GENRE=@genre} {MUSIC_TYPE=music} by {MUSIC_ARTIST_NAME=@artist}"),
        ("PLAY_MUSIC", "play my {MUSIC_PLAYLIST_TITLE=@genre} playlist {DATE_TIME=at @hour @half}"),
        ("ADD_TO_PLAYLIST_MUSIC", "add {MUSIC_TRACK_TITLE=@track} to my {MUSIC_PLAYLIST_TITLE=@genre} playlist"),
        (
            "ADD_TO_PLAYLIST_MUSIC",
            "put {MUSIC_TRACK_TITLE=@track} by {MUSIC_ARTIST_NAME=@artist} on the {MUSIC_PLAYLIST_TITLE=@genre} playlist",
        ),
    ),
    "call": (
        ("CREATE_CALL", "call {CONTACT=@name} {DATE_TIME=at @hour @half}"),
        ("CREATE_CALL", "call {CONTACT=@name} on {NAME_APP=@app}"),
        ("CREATE_CALL", "call {CONTACT=@name} and {CONTACT=@name}"),
        ("CREATE_CALL", "call {CONTACT=@name} and {CONTACT=@name} on {NAME_APP=@app}"),
        ("CREATE_CALL", "make a video call to {CONTACT=@name} with {NAME_APP=@app}"),
    ),
    "reminder": (
        ("CREATE_REMINDER", "remind {PERSON_REMINDED=me} to {TODO=@todo} {DATE_TIME=@when}"),
        ("CREATE_REMINDER", "remind {PERSON_REMINDED=me} to {TODO=@todo} {DATE_TIME=at @hour @half}"),
        ("CREATE_REMINDER", "remind {PERSON_REMINDED=me} {DATE_TIME=@when} to {TODO=@todo}"),
        ("CREATE_REMINDER", "remind {PERSON_REMINDED=@name} to {TODO=@todo} {DATE_TIME=@when}"),
        ("CREATE_REMINDER", "remind {PERSON_REMINDED=me} to {TODO=@todo} and to {TODO=@todo}"),
        ("DELETE_REMINDER", "delete my reminder to {TODO=@todo} {DATE_TIME=@when}"),
        ("GET_REMINDER", "when do I have to {TODO=@todo}"),
    ),
    "nested": (
        ("CREATE_REMINDER", "remind {PERSON_REMINDED=me} to {TODO=@errand}"),
        ("CREATE_REMINDER", "remind {PERSON_REMINDED=me} {DATE_TIME=@when} to {TODO=@errand}"),
        ("CREATE_REMINDER", "remind {PERSON_REMINDED=me} to {TODO=@errand} {DATE_TIME=@when}"),
        ("CREATE_CALL", "call {CONTACT=@relative} {DATE_TIME=at @hour @half}"),
        ("CREATE_CALL", "call {CONTACT=@relative} on {NAME_APP=@app}"),
        ("SEND_MESSAGE", "tell {RECIPIENT=@relative} that {CONTENT_EXACT=@content}"),
    ),
    "deep": (
        ("CREATE_REMINDER", "remind {PERSON_REMINDED=me} to {TODO=@family_errand}"),
        ("CREATE_REMINDER", "remind {PERSON_REMINDED=me} {DATE_TIME=@when} to {TODO=@family_errand}"),
    ),
}
"""Group to its (intent, template) pairs. `{LABEL=words}` is a slot, `@kind` in it a filler; other words stay outside the
parse, as decoupled parses have it. `nested` holds two intents, `deep` up to three, with slots five brackets deep."""

POLITE = ("", "", "please ", "can you ")
"""What may come before a command."""

_OPTIONS = {kind: options.split("|") for kind, options in FILLERS.items()}


@dataclass(frozen=True, slots=True)
class _Part:
    """Words, their parse, and the fillers among them, in order."""

    words: str
    parse: str
    fillers: tuple[str, ...]


def draw_utterance(rng: Random, group: str, *, held_back: bool) -> tuple[str, str]:
    """(utterance, parse) of a group of TEMPLATES.

    As people write, a time may be one word (`7pm`; `7 pm` in the parse), and a question may end with a question mark: the
    pointer form must separate both.
    """
    while True:
        intent, template = pick(rng, TEMPLATES[group])
        part = _draw_intent(rng, intent, template)
        pairs = list(pairwise(part.fillers if len(part.fillers) > 1 else (template, *part.fillers)))
        if all(one != other for one, other in pairs) and any(is_held_back(*pair) for pair in pairs) == held_back:
            break
    utterance = part.words if rng.random() < 0.5 else _CLOCK.sub(r"\1\2", part.words)
    if intent.startswith("GET_"):
        return utterance + pick(rng, ("", "?")), part.parse
    return pick(rng, POLITE) + utterance, part.parse


def _draw_intent(rng: Random, intent: str, template: str) -> _Part:
    words, slots = "", ""
    fillers: tuple[str, ...] = ()
    for before, label, inside in _split(template):
        parts = [_draw_filler(rng, word) for word in inside]
        words += before + " ".join(part.words for part in parts)
        if label:
            slots += f"[SL:{label} {' '.join(part.parse for part in parts)} ] "
        fillers = sum((part.fillers for part in parts), fillers)
    return _Part(words, f"[IN:{intent} {slots}]", fillers)


@functools.cache
def _split(template: str) -> list[tuple[str, str, list[str]]]:
    """(words before the slot, label, its fillers) for each slot; the words after the last slot have no label."""
    parts = [*_SLOT.split(template), "", ""]
    return [(parts[n], parts[n + 1], parts[n + 2].split()) for n in range(0, len(parts), 3)]


def _draw_filler(rng: Random, word: str) -> _Part:
    if not word.startswith("@"):
        return _Part(word, word, ())
    kind = word[1:]
    if kind in NESTED:
        return _draw_intent(rng, *pick(rng, NESTED[kind]))
    option = pick(rng, _OPTIONS[kind])
    return _Part(option, option, (option,))
