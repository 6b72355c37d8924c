"""What one drawing asks for: `Request` and `Prompt`; `arguments.ask` makes one of keyword arguments; picture files keep one."""

from .request import MIXES, MODALITIES, OPTIONS, Mix, OutputType, Prompt, Request, checked

__all__ = ["MIXES", "MODALITIES", "OPTIONS", "Mix", "OutputType", "Prompt", "Request", "checked"]
