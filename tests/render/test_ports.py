"""MIDI ports through mido's backend interface."""

from __future__ import annotations

import sys

import mido
import pytest

from meloformer.errors import InputError, MeloFormerError
from meloformer.render.ports import matching_name, output_names, output_port
from tests.render import recording_backend

pytestmark = pytest.mark.usefixtures("recorder")


def test_ports_are_listed_and_opened_by_a_part_of_their_name() -> None:
    assert output_names() == ["Recorder A", "Recorder B", "Organ"]
    with output_port("recorder b") as port:
        port.send(mido.Message("note_on", note=60))
    assert [(name, message.type) for _, name, message in recording_backend.sent] == [("Recorder B", "note_on")]
    assert port.closed


def test_a_port_that_is_not_there_or_not_free_is_an_error_that_names_what_is() -> None:
    with pytest.raises(InputError, match=r"no MIDI port 'Flute'; there are: Recorder A, Recorder B, Organ"):
        matching_name("Flute", output_names())
    with pytest.raises(InputError, match=r"several MIDI ports have 'record'"):
        matching_name("record", output_names())
    with pytest.raises(InputError, match=r"there is none"):
        matching_name("Flute", [])
    assert matching_name("A", ["A", "AB"]) == "A"
    with pytest.raises(InputError, match=r"'Organ' cannot be opened \(the organ is in use\)"), output_port("organ"):
        pass


def test_a_system_without_midi_and_one_without_a_port_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_midi() -> list[str]:
        raise SystemError("MidiOutAlsa::initialize: error creating\nALSA sequencer")

    monkeypatch.setattr(mido, "get_output_names", no_midi)
    with pytest.raises(MeloFormerError) as caught:
        output_names()
    assert "error creating ALSA sequencer" in str(caught.value)
    assert str(caught.value).endswith("; run without --port, and play the .mid file")
    with pytest.raises(InputError, match=r"run without --port, and play the \.mid file$"):
        matching_name("Flute", [])


def test_a_missing_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    mido.set_backend("mido.backends.rtmidi")
    monkeypatch.setitem(sys.modules, "rtmidi", None)
    monkeypatch.delitem(sys.modules, "mido.backends.rtmidi", raising=False)
    with pytest.raises(MeloFormerError, match=r"pip install 'meloformer\[live\]'"):
        output_names()
    mido.set_backend("no_such_backend")
    with pytest.raises(MeloFormerError, match="MIDO_BACKEND"):
        output_names()
