"""General MIDI: the names of the programs and of their families, and what people call them.

Source: General MIDI System Level 1, "Sound Set" and "Percussion Map".
"""

from __future__ import annotations

from difflib import get_close_matches

from meloformer.errors import SettingsError
from meloformer.midi.score import DRUMS

PROGRAM_NAMES = (
    "Acoustic Grand Piano", "Bright Acoustic Piano", "Electric Grand Piano", "Honky-tonk Piano",
    "Electric Piano 1", "Electric Piano 2", "Harpsichord", "Clavinet",
    "Celesta", "Glockenspiel", "Music Box", "Vibraphone", "Marimba", "Xylophone", "Tubular Bells", "Dulcimer",
    "Drawbar Organ", "Percussive Organ", "Rock Organ", "Church Organ",
    "Reed Organ", "Accordion", "Harmonica", "Tango Accordion",
    "Acoustic Guitar (nylon)", "Acoustic Guitar (steel)", "Electric Guitar (jazz)", "Electric Guitar (clean)",
    "Electric Guitar (muted)", "Overdriven Guitar", "Distortion Guitar", "Guitar Harmonics",
    "Acoustic Bass", "Electric Bass (finger)", "Electric Bass (pick)", "Fretless Bass",
    "Slap Bass 1", "Slap Bass 2", "Synth Bass 1", "Synth Bass 2",
    "Violin", "Viola", "Cello", "Contrabass", "Tremolo Strings", "Pizzicato Strings", "Orchestral Harp", "Timpani",
    "String Ensemble 1", "String Ensemble 2", "Synth Strings 1", "Synth Strings 2",
    "Choir Aahs", "Voice Oohs", "Synth Voice", "Orchestra Hit",
    "Trumpet", "Trombone", "Tuba", "Muted Trumpet", "French Horn", "Brass Section", "Synth Brass 1", "Synth Brass 2",
    "Soprano Sax", "Alto Sax", "Tenor Sax", "Baritone Sax", "Oboe", "English Horn", "Bassoon", "Clarinet",
    "Piccolo", "Flute", "Recorder", "Pan Flute", "Blown Bottle", "Shakuhachi", "Whistle", "Ocarina",
    "Lead 1 (square)", "Lead 2 (sawtooth)", "Lead 3 (calliope)", "Lead 4 (chiff)",
    "Lead 5 (charang)", "Lead 6 (voice)", "Lead 7 (fifths)", "Lead 8 (bass + lead)",
    "Pad 1 (new age)", "Pad 2 (warm)", "Pad 3 (polysynth)", "Pad 4 (choir)",
    "Pad 5 (bowed)", "Pad 6 (metallic)", "Pad 7 (halo)", "Pad 8 (sweep)",
    "FX 1 (rain)", "FX 2 (soundtrack)", "FX 3 (crystal)", "FX 4 (atmosphere)",
    "FX 5 (brightness)", "FX 6 (goblins)", "FX 7 (echoes)", "FX 8 (sci-fi)",
    "Sitar", "Banjo", "Shamisen", "Koto", "Kalimba", "Bagpipe", "Fiddle", "Shanai",
    "Tinkle Bell", "Agogo", "Steel Drums", "Woodblock",
    "Taiko Drum", "Melodic Tom", "Synth Drum", "Reverse Cymbal",
    "Guitar Fret Noise", "Breath Noise", "Seashore", "Bird Tweet",
    "Telephone Ring", "Helicopter", "Applause", "Gunshot",
)  # fmt: skip
"""(128) name of every program."""

FIRST_DRUM = 35
DRUM_NAMES = (
    "Acoustic Bass Drum", "Bass Drum 1", "Side Stick", "Acoustic Snare", "Hand Clap", "Electric Snare",
    "Low Floor Tom", "Closed Hi-Hat", "High Floor Tom", "Pedal Hi-Hat", "Low Tom", "Open Hi-Hat",
    "Low-Mid Tom", "Hi-Mid Tom", "Crash Cymbal 1", "High Tom", "Ride Cymbal 1", "Chinese Cymbal",
    "Ride Bell", "Tambourine", "Splash Cymbal", "Cowbell", "Crash Cymbal 2", "Vibraslap",
    "Ride Cymbal 2", "Hi Bongo", "Low Bongo", "Mute Hi Conga", "Open Hi Conga", "Low Conga",
    "High Timbale", "Low Timbale", "High Agogo", "Low Agogo", "Cabasa", "Maracas",
    "Short Whistle", "Long Whistle", "Short Guiro", "Long Guiro", "Claves", "Hi Wood Block",
    "Low Wood Block", "Mute Cuica", "Open Cuica", "Mute Triangle", "Open Triangle",
)  # fmt: skip
"""(47) name of every drum, from key ``FIRST_DRUM`` on."""

FAMILIES = {
    name: range(8 * number, 8 * number + 8)
    for number, name in enumerate(
        ("piano", "chromatic percussion", "organ", "guitar", "bass", "strings", "ensemble", "brass",
         "reed", "pipe", "synth lead", "synth pad", "synth effects", "ethnic", "percussive", "sound effects")
    )
}  # fmt: skip
"""Family name -> its eight programs."""

COMMON_NAMES: dict[str, tuple[int, ...]] = {
    "drums": (DRUMS,),
    "drum": (DRUMS,),
    "percussion": (DRUMS,),
    "strings": (*range(40, 46), *range(48, 52)),  # General MIDI counts harp and timpani among them
    "choir": (52, 53, 54),
    "voice": (52, 53, 54),
    "sax": (*range(64, 68),),
    "saxophone": (*range(64, 68),),
    "horn": (60,),
    "harp": (46,),
    "synth": (*range(80, 96),),
    "lead": (*range(80, 88),),
    "pad": (*range(88, 96),),
    "electric piano": (4, 5),
    "acoustic guitar": (24, 25),
    "electric guitar": (*range(26, 32),),
}
"""What people say besides -> programs, likeliest first."""


SHORTEST_BEGINNING = 3
"""Letters of a word by which an instrument may be named: fewer begin the words of many."""


def program_name(program: int) -> str:
    """General MIDI name of a program; ``Drums`` for 128."""
    return "Drums" if program == DRUMS else PROGRAM_NAMES[program]


def drum_name(pitch: int) -> str:
    """General MIDI name of a drum; of a key that has none, its number."""
    number = pitch - FIRST_DRUM
    return DRUM_NAMES[number] if 0 <= number < len(DRUM_NAMES) else f"key {pitch}"


def programs_of(name: str) -> list[int]:
    """The programs that a name stands for.

    Args:
        name: A number ``33`` or ``#33``, ``#D``, ``drums``, a General MIDI name or at least three letters that begin a
            word of one, a family; any case.
    Returns:
        Programs, at least one; several for a family.
    Raises:
        SettingsError: No instrument is called so; names close ones.
    """
    wanted = " ".join(name.strip().lower().split())
    if wanted in ("#d", "d", "#128", "128"):
        return [DRUMS]
    number = wanted.removeprefix("#")
    if number.isdecimal() and int(number) < DRUMS:
        return [int(number)]
    exact = [program for program, full in enumerate(PROGRAM_NAMES) if full.lower() == wanted]
    if exact:
        return exact
    for table in (COMMON_NAMES, FAMILIES):
        if wanted in table:
            return list(table[wanted])
    plural = wanted.removesuffix("s")
    if plural in COMMON_NAMES or plural in FAMILIES:
        return list(COMMON_NAMES.get(plural) or FAMILIES[plural])
    is_long = len(wanted) >= SHORTEST_BEGINNING
    partial = [program for program, full in enumerate(PROGRAM_NAMES) if is_long and f" {wanted}" in f" {full.lower()}"]
    if partial:
        return partial
    known = [full.lower() for full in PROGRAM_NAMES] + list(COMMON_NAMES) + list(FAMILIES)
    close = get_close_matches(wanted, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "give a General MIDI name, a family or a number 0-127"
    raise SettingsError(f"there is no instrument {name.strip()!r}", hint)
