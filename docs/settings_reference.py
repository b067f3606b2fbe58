"""Fields of settings in the reference of Python: their types alone, with their `Doc` as text."""

import ast

import griffe


class PlainFields(griffe.Extension):
    """Takes `Annotated[int, Ge(1), Doc("...")]` apart."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: object) -> None:
        """Called by griffe for each attribute that it has read."""
        annotation = attr.annotation
        if not isinstance(annotation, griffe.ExprSubscript) or str(annotation.left) != "Annotated":
            return
        assert isinstance(annotation.slice, griffe.ExprTuple)
        plain, *notes = annotation.slice.elements
        attr.annotation = plain
        for note in notes:
            if isinstance(note, griffe.ExprCall) and str(note.function) == "Doc":
                text = ast.literal_eval(str(note.arguments[0]))
                attr.docstring = attr.docstring or griffe.Docstring(text, parent=attr)
