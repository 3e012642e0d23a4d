"""Speech to words: what a judge reads. Only speech is transcribed, and nothing twice.

`open_recognizer(config)` gives one; `transcribe_speech` cuts the speech out of recordings, looks it
up, and transcribes what is new.
"""

from rewards.asr.cache import TranscriptCache
from rewards.asr.config import AsrConfig, open_recognizer
from rewards.asr.pool import RecognizerPool
from rewards.asr.protocol import Recognizer, Transcript, Word
from rewards.asr.speech import transcribe_speech
from rewards.asr.text_stream import Said, text_stream_words, utterances_of_words

__all__ = [
    "AsrConfig",
    "Recognizer",
    "RecognizerPool",
    "Said",
    "Transcript",
    "TranscriptCache",
    "Word",
    "open_recognizer",
    "text_stream_words",
    "transcribe_speech",
    "utterances_of_words",
]
