"""Every error that a user can cause, and what to do about it.

    ModernBertError                 catch this to catch them all
    ├── InputError                  an invalid text, token id or argument
    │   └── DocumentError           a file of a corpus, or one of its records
    ├── SettingsError               a recipe or a setting: unknown key, wrong type, bad value
    ├── ConfigError                 a model's numbers: contradictory, absurd or not supported
    ├── TokenizerError              a tokenizer file that cannot be used
    ├── ModelFolderError            a model folder: missing, incomplete or of another shape
    ├── ExportError                 a model that cannot be exported, or whose export differs
    ├── ResultError                 a model that gave results that are not finite numbers
    ├── HubError                    a folder that cannot be pushed to the hub
    ├── MissingPackageError         a package that is needed here is not installed
    ├── ShardError                  token shards: truncated, changed or in another format
    ├── RunError                    a run folder: of another recipe, or without a usable checkpoint
    │   ├── CheckpointError         a checkpoint: incomplete, changed or of another run
    │   └── InUseError              a folder that another process works in
    └── TrainingError               training cannot continue
        ├── NonFiniteLossError      the loss became NaN or infinite; no weight was touched
        └── ProcessError            another process of the run failed, exited or hangs

Each message is one line that names what was given, what was expected and what to do. The command
line prints only that line; in Python you can catch the class.
"""


class ModernBertError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(ModernBertError, ValueError):
    """A text, a token id or an argument is invalid."""


class DocumentError(InputError):
    """A corpus file, or one of its records, cannot be read."""


class SettingsError(ModernBertError, ValueError):
    """A recipe or a setting has an unknown key, a wrong type or a bad value."""


class ConfigError(ModernBertError, ValueError):
    """The numbers of a model contradict each other, are absurd or are not supported."""


class TokenizerError(ModernBertError, ValueError):
    """A tokenizer file is missing, broken or lacks a special token."""


class ModelFolderError(ModernBertError):
    """A model folder is missing, incomplete or does not fit its config."""


class ExportError(ModernBertError):
    """A model cannot be exported, or its export computes something else."""


class ResultError(ModernBertError):
    """A model gave results that are not finite numbers."""


class HubError(ModernBertError):
    """A folder is not fit for the hub, or the hub did not accept it."""


class MissingPackageError(ModernBertError, ImportError):
    """A package is not installed that only some uses need; the message says how to install it."""


class ShardError(ModernBertError):
    """Token shards are missing, truncated, changed or in another format."""


class RunError(ModernBertError):
    """A run folder belongs to another recipe or cannot be used."""


class CheckpointError(RunError):
    """A checkpoint is incomplete, changed or of another run."""


class InUseError(RunError):
    """Another process works in the folder; wait for its end, or stop it."""


class TrainingError(ModernBertError):
    """Training cannot continue; the message says from where you can resume it."""


class NonFiniteLossError(TrainingError):
    """The loss or a gradient became NaN or infinite; the step was not taken."""


class ProcessError(TrainingError):
    """Another process of the run failed, exited or hangs; run the same command to continue."""


class ModernBertWarning(UserWarning):
    """Base of every warning of this package; the command line prints each as one line."""


class NativeKernelsWarning(ModernBertWarning):
    """The C kernels are not there, or not the best ones; one line says why and what to do."""


class GrowthWarning(ModernBertWarning):
    """A model is grown from one at an unsuitable point of its training."""


class TrackerWarning(ModernBertWarning):
    """A tracker cannot be logged to; the training goes on."""


class TruncationWarning(ModernBertWarning):
    """Texts were longer than the model reads and were truncated."""


class FolderWarning(ModernBertWarning):
    """Another folder than the one that was named was taken."""
