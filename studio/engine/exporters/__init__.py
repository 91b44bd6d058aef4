"""Export formats: one file each, one name each below."""

from studio.engine.exporters.adapter import write_adapter
from studio.engine.exporters.merged import write_merged

EXPORTERS = {"adapter": write_adapter, "merged": write_merged}
