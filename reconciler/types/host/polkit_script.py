"""Reads the JavaScript of polkit's rules: what Duktape, the engine of polkitd, takes, and nothing else.

That is ECMAScript 5.1 with a few later things (`const`, computed and short properties, methods, `**`). A script that
this module refuses is one that polkitd skips. Pure: no input or output, and nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn


class ScriptError(Exception):
    """The script cannot be compiled.

    Attributes:
        line: counts from 1.
        newer: it is JavaScript, but newer than polkit's engine.
    """

    def __init__(self, line: int, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.line, self.message, self.newer = line, message, newer


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of a script.

    Attributes:
        kind: see the parser below; for example `member` has the object as its part and the property's name as text.
        line: where it starts, from 1.
        parts: the pieces that it is made of, in their order; None where an optional one is missing.
        text: a name, an operator or the value of a string.
        parens: it stands in parentheses of its own.
    """

    kind: str
    line: int
    parts: tuple[Node | None, ...] = ()
    text: str = ""
    parens: bool = False

    def part(self, index: int) -> Node:
        """A part that is there."""
        found = self.parts[index]
        assert found is not None
        return found

    def walk(self) -> Iterator[Node]:
        """This piece and all below it, in the order of the text."""
        todo: list[Node] = [self]
        while todo:
            node = todo.pop()
            yield node
            todo.extend(part for part in reversed(node.parts) if part is not None)


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the script. `kind` is name, keyword, number, string, punctuator, regex or end."""

    kind: str
    text: str
    line: int
    start: int
    newline: bool
    """A line ended before it."""


KEYWORD: Final = re.compile(
    "break|case|catch|class|const|continue|debugger|default|delete|do|else|enum|export|extends|false|finally|for|"
    "function|if|import|in|instanceof|new|null|return|super|switch|this|throw|true|try|typeof|var|void|while|with"
)
PUNCTUATORS: Final = re.compile(
    r">>>=|===|!==|>>>|<<=|>>=|\*\*=|\.\.\.|=>|\?\?|\?\.(?![0-9])|==|!=|<=|>=|&&|\|\||\+\+|--|\+=|-=|\*=|/=|%=|&=|\|=|\^="
    r"|<<|>>|\*\*|[{}()\[\];,<>+\-*/%&|^!~?:=.]"
)
SPACE: Final = re.compile(r"[\t\v\f \u00a0\ufeff\u1680\u2000-\u200a\u202f\u205f\u3000]+")
NEWLINE: Final = re.compile(r"\r\n|[\n\r\u2028\u2029]")
COMMENT: Final = re.compile(r"//[^\n\r\u2028\u2029]*|<!--[^\n\r\u2028\u2029]*")
NAME: Final = re.compile(r"(?:[^\W\d]|[$_]|\\u[0-9a-fA-F]{4})(?:[\w$\u200c\u200d]|\\u[0-9a-fA-F]{4})*")
NUMBER: Final = re.compile(
    r"0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
)
ESCAPE: Final = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|x([0-9a-fA-F]{2})|([0-7]{1,3})|(\r\n)|([^ux]))", re.DOTALL
)
SIMPLE: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "\n": "", "\r": "", "\u2028": ""}
NEWER: Final = {
    "=>": "an arrow function",
    "...": "a spread",
    "??": "`??`",
    "?.": "`?.`",
    "`": "a template string",
    "class": "a class",
    "import": "a module",
    "export": "a module",
    "super": "a class",
}
ASSIGNMENTS: Final = frozenset(["=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=", ">>>=", "**="])
LEVELS: Final = {
    operator: level
    for level, operators in enumerate(
        ["||", "&&", "|", "^", "&", "== != === !==", "< > <= >= in instanceof", "<< >> >>>", "+ -", "* / %", "**"]
    )
    for operator in operators.split()
}
DEEPEST: Final = 60
"""Pieces inside each other; more is not written by hand, and would exhaust our own stack."""


class Tokens:
    """Cuts a script into tokens, on demand, because only the parser knows whether `/` divides."""

    def __init__(self, script: str) -> None:
        self.script, self.place, self.line = script, 0, 1

    def next(self) -> Token:
        """The next token.

        Raises:
            ScriptError: there is none that the engine knows.
        """
        newline = self._skip()
        start, line = self.place, self.line

        def token(kind: str, text: str, end: int) -> Token:
            self.place = end
            return Token(kind, text, line, start, newline)

        if start >= len(self.script):
            return token("end", "the end of the file", start)
        character = self.script[start]
        if character in "\"'":
            return token("string", self._string(character), self.place)
        if found := NAME.match(self.script, start):
            word = re.sub(r"\\u(.{4})", lambda m: chr(int(m[1], 16)), found[0])
            return token("keyword" if KEYWORD.fullmatch(found[0]) else "name", word, found.end())
        if found := NUMBER.match(self.script, start):
            if NAME.match(self.script, found.end()) or self.script[found.end() : found.end() + 1].isdigit():
                raise ScriptError(line, f"{found[0]}{self.script[found.end()]} is no number")
            return token("number", found[0], found.end())
        if found := PUNCTUATORS.match(self.script, start):
            if found[0] in NEWER:
                raise ScriptError(line, f"{NEWER[found[0]]} is not known", newer=True)
            return token("punctuator", found[0], found.end())
        if character == "`":
            raise ScriptError(line, f"{NEWER[character]} is not known", newer=True)
        raise ScriptError(line, f"{character!r} does not belong here")

    def regex(self, slash: Token) -> Token:
        """Read a regular expression that begins with this `/` or `/=`.

        Raises:
            ScriptError: it does not end, or cannot be compiled.
        """
        place, in_class, groups = slash.start + 1, False, 0
        while True:
            character = self.script[place : place + 1]
            if not character or NEWLINE.match(character):
                raise ScriptError(slash.line, "a regular expression does not end")
            if character == "\\":
                place += 1
            elif in_class or character == "[":
                in_class = character != "]"
            elif character == "/":
                break
            elif character == "(":
                groups += 1
                if self.script[place + 1] == "?" and self.script[place + 2] not in ":=!":
                    raise ScriptError(slash.line, "a regular expression has an unknown kind of group")
            elif character == ")":
                groups -= 1
                if groups < 0:
                    break
            place += 1
        if groups:
            raise ScriptError(slash.line, "the parentheses of a regular expression do not match")
        flags = re.compile(r"\w*").match(self.script, place + 1)
        assert flags is not None
        if not re.fullmatch(r"(?!.*(.).*\1)[gim]*", flags[0]):
            raise ScriptError(slash.line, f"a regular expression has unknown flags {flags[0]}")
        self.place = flags.end()
        return Token("regex", self.script[slash.start : self.place], slash.line, slash.start, slash.newline)

    def _skip(self) -> bool:
        """Go past spaces and comments; say whether a line ended."""
        newline = self.place == 0
        while True:
            if found := SPACE.match(self.script, self.place) or COMMENT.match(self.script, self.place):
                self.place = found.end()
            elif found := NEWLINE.match(self.script, self.place):
                self.place, self.line, newline = found.end(), self.line + 1, True
            elif self.script.startswith("/*", self.place):
                end = self.script.find("*/", self.place + 2)
                if end < 0:
                    raise ScriptError(self.line, "a comment does not end")
                lines = len(NEWLINE.findall(self.script, self.place, end))
                self.place, self.line, newline = end + 2, self.line + lines, newline or lines > 0
            elif newline and self.script.startswith("-->", self.place):
                end_of_line = NEWLINE.search(self.script, self.place)
                self.place = end_of_line.start() if end_of_line else len(self.script)
            else:
                return newline

    def _string(self, quote: str) -> str:
        line = self.line
        out: list[str] = []
        self.place += 1
        while True:
            character = self.script[self.place : self.place + 1]
            if not character or NEWLINE.match(character):
                raise ScriptError(line, "a string does not end on its line")
            if character == quote:
                self.place += 1
                return "".join(out)
            if character == "\\":
                found = ESCAPE.match(self.script, self.place)
                if not found:
                    raise ScriptError(line, "a string has an escape that does not exist")
                code, long_code, byte, octal, _, other = found.groups()
                if number := code or long_code or byte:
                    out.append(chr(min(int(number, 16), 0x10FFFF)))
                elif octal:
                    out.append(chr(int(octal, 8) & 0xFF))
                elif other:
                    out.append(SIMPLE.get(other, "" if NEWLINE.match(other) else other))
                self.line += len(NEWLINE.findall(found[0]))
                self.place = found.end()
            else:
                out.append(character)
                self.place += 1


class Parser:
    """Turns tokens into nodes, by recursive descent."""

    def __init__(self, script: str) -> None:
        self._tokens = Tokens(script)
        self._token = self._tokens.next()
        self._functions = self._depth = 0
        self._loops = self._switches = 0
        self._labels: tuple[str, ...] = ()

    # ------------------------------------------------------------------------------------------ tokens

    def _advance(self) -> Token:
        token, self._token = self._token, self._tokens.next()
        return token

    def _at(self, *texts: str) -> bool:
        return self._token.kind in ("punctuator", "keyword") and self._token.text in texts

    def _take(self, *texts: str) -> Token | None:
        return self._advance() if self._at(*texts) else None

    def _need(self, text: str) -> Token:
        return self._take(text) or self._fail(f"`{text}` is missing before")

    def _fail(self, message: str = "unexpected") -> NoReturn:
        text, line = self._token.text, self._token.line
        if self._token.kind == "keyword" and text in NEWER:
            raise ScriptError(line, f"{NEWER[text]} is not known", newer=True)
        shown = text if self._token.kind == "end" else repr(text)
        raise ScriptError(line, f"{message} {shown}")

    def _name(self) -> Token:
        if self._token.kind != "name":
            if self._at("{", "["):
                raise ScriptError(self._token.line, "destructuring is not known", newer=True)
            self._fail("a name is missing before")
        return self._advance()

    def _property_name(self) -> Token:
        if self._token.kind not in ("name", "keyword"):
            self._fail("the name of a property is missing before")
        return self._advance()

    def _semicolon(self) -> None:
        if not self._take(";") and not self._at("}") and not self._token.newline and self._token.kind != "end":
            self._fail("`;` is missing before")

    # ------------------------------------------------------------------------------------------ statements

    def script(self) -> Node:
        """All of it: a `block`."""
        body = []
        while self._token.kind != "end":
            body.append(self._statement())
        return Node("block", 1, tuple(body))

    def _statement(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ScriptError(self._token.line, "it is nested too deeply")
        try:
            return self._one_statement()
        finally:
            self._depth -= 1

    def _one_statement(self) -> Node:
        token = self._token
        line = token.line
        if token.kind == "keyword" and (method := getattr(self, f"_{token.text}_statement", None)):
            self._advance()
            node: Node = method(line)
            return node
        if self._at("{"):
            return self._block()
        if self._take(";"):
            return Node("empty", line)
        expression = self._expression()
        if expression.kind == "name" and not expression.parens and self._take(":"):
            outer, self._labels = self._labels, (*self._labels, expression.text)
            body = self._statement()
            self._labels = outer
            return Node("label", line, (body,), expression.text)
        if expression.kind == "name" and self._token.kind in ("name", "keyword") and not self._token.newline:
            if expression.text == "let":
                raise ScriptError(line, "`let` is not known", newer=True)
            if expression.text == "async":
                raise ScriptError(line, "`async` is not known", newer=True)
        self._semicolon()
        return Node("expression", line, (expression,))

    def _block(self) -> Node:
        line = self._need("{").line
        body = []
        while not self._at("}"):
            if self._token.kind == "end":
                raise ScriptError(self._token.line, f"the `{{` of line {line} is never closed")
            body.append(self._statement())
        self._advance()
        return Node("block", line, tuple(body))

    def _var_statement(self, line: int) -> Node:
        node = self._variables(line)
        self._semicolon()
        return node

    def _const_statement(self, line: int) -> Node:
        node = self._variables(line)
        for variable in node.parts:
            if variable is not None and not variable.parts:
                raise ScriptError(variable.line, f"the constant {variable.text} has no value")
        self._semicolon()
        return node

    def _variables(self, line: int, *, no_in: bool = False) -> Node:
        out = []
        while True:
            name = self._name()
            value = (self._assignment(no_in=no_in),) if self._take("=") else ()
            out.append(Node("variable", name.line, value, name.text))
            if not self._take(","):
                return Node("var", line, tuple(out))

    def _function_statement(self, line: int) -> Node:
        return self._function(line, self._name().text, "declaration")

    def _function(self, line: int, name: str, kind: str = "function") -> Node:
        """Parts: the parameters as names, then the body."""
        self._need("(")
        parameters = []
        while not self._at(")"):
            found = self._name()
            parameters.append(Node("name", found.line, (), found.text))
            if self._at("="):
                raise ScriptError(found.line, "a default value is not known", newer=True)
            if not self._take(","):
                break
            if self._at(")"):
                self._fail("a name is missing before")
        self._need(")")
        outer = self._loops, self._switches, self._labels
        self._loops = self._switches = 0
        self._labels = ()
        self._functions += 1
        body = self._block()
        self._functions -= 1
        self._loops, self._switches, self._labels = outer
        return Node(kind, line, (*parameters, body), name)

    def _if_statement(self, line: int) -> Node:
        test = self._test()
        then = self._statement()
        return Node("if", line, (test, then, self._statement() if self._take("else") else None))

    def _test(self) -> Node:
        self._need("(")
        test = self._expression()
        self._need(")")
        return test

    def _loop(self) -> Node:
        self._loops += 1
        body = self._statement()
        self._loops -= 1
        return body

    def _while_statement(self, line: int) -> Node:
        test = self._test()
        return Node("while", line, (test, self._loop()))

    def _do_statement(self, line: int) -> Node:
        body = self._loop()
        self._need("while")
        test = self._test()
        self._take(";")
        return Node("while", line, (test, body))

    def _for_statement(self, line: int) -> Node:
        """Parts: first, test, next, body; of a `for (x in y)` the variable, the object and the body."""
        self._need("(")
        first: Node | None = None
        if self._at("var", "const"):
            first = self._variables(self._advance().line, no_in=True)
        elif not self._at(";"):
            first = self._expression(no_in=True)
        if self._token.kind == "name" and self._token.text == "of":
            raise ScriptError(line, "`for ... of` is not known", newer=True)
        if self._take("in"):
            many = self._expression()
            self._need(")")
            return Node("each", line, (first, many, self._loop()))
        if first is not None and first.kind == "name" and first.text == "let":
            raise ScriptError(line, "`let` is not known", newer=True)
        self._need(";")
        test = None if self._at(";") else self._expression()
        self._need(";")
        step = None if self._at(")") else self._expression()
        self._need(")")
        return Node("for", line, (first, test, step, self._loop()))

    def _return_statement(self, line: int) -> Node:
        if not self._functions:
            raise ScriptError(line, "`return` stands outside of a function")
        bare = self._at(";", "}") or self._token.newline or self._token.kind == "end"
        node = Node("return", line, () if bare else (self._expression(),))
        self._semicolon()
        return node

    def _throw_statement(self, line: int) -> Node:
        if self._token.newline:
            raise ScriptError(line, "`throw` has nothing to throw on its line")
        node = Node("throw", line, (self._expression(),))
        self._semicolon()
        return node

    def _break_statement(self, line: int) -> Node:
        return self._jump("break", line, self._loops + self._switches)

    def _continue_statement(self, line: int) -> Node:
        return self._jump("continue", line, self._loops)

    def _jump(self, word: str, line: int, allowed: int) -> Node:
        label = "" if self._token.newline or self._token.kind != "name" else self._advance().text
        if label not in self._labels if label else not allowed:
            raise ScriptError(line, f"`{word} {label}".rstrip() + "` has nowhere to go")
        self._semicolon()
        return Node(word, line, (), label)

    def _switch_statement(self, line: int) -> Node:
        """Parts: the value, then the cases, each with its value (None for `default`) and its statements."""
        value = self._test()
        self._need("{")
        cases: list[Node] = []
        self._switches += 1
        while not self._take("}"):
            at = self._token.line
            test = None
            if self._take("default"):
                if any(case.parts[0] is None for case in cases):
                    raise ScriptError(at, "`default` is there twice")
            else:
                self._need("case")
                test = self._expression()
            self._need(":")
            body = []
            while not self._at("case", "default", "}"):
                if self._token.kind == "end":
                    raise ScriptError(self._token.line, f"the `{{` of line {line} is never closed")
                body.append(self._statement())
            cases.append(Node("case", at, (test, *body)))
        self._switches -= 1
        return Node("switch", line, (value, *cases))

    def _try_statement(self, line: int) -> Node:
        """Parts: the block, the handler (with the name that it catches), the last block."""
        block = self._block()
        handler = None
        if caught := self._take("catch"):
            self._need("(")
            name = self._name().text
            self._need(")")
            handler = Node("catch", caught.line, (self._block(),), name)
        last = self._block() if self._take("finally") else None
        if handler is None and last is None:
            self._fail("`catch` is missing before")
        return Node("try", line, (block, handler, last))

    def _with_statement(self, line: int) -> Node:
        value = self._test()
        return Node("with", line, (value, self._statement()))

    def _debugger_statement(self, line: int) -> Node:
        self._semicolon()
        return Node("empty", line)

    # ------------------------------------------------------------------------------------------ expressions

    def _expression(self, *, no_in: bool = False) -> Node:
        first = self._assignment(no_in=no_in)
        if not self._at(","):
            return first
        parts = [first]
        while self._take(","):
            parts.append(self._assignment(no_in=no_in))
        return Node("sequence", first.line, tuple(parts))

    def _assignment(self, *, no_in: bool = False) -> Node:
        """`assign` may have any expression on its left: the engine compiles that, and throws when it gets there."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise ScriptError(self._token.line, "it is nested too deeply")
        left = self._binary(0, no_in)
        if self._take("?"):
            then = self._assignment()
            self._need(":")
            left = Node("conditional", left.line, (left, then, self._assignment(no_in=no_in)))
        elif self._token.kind == "punctuator" and self._token.text in ASSIGNMENTS:
            operator = self._advance().text
            left = Node("assign", left.line, (left, self._assignment(no_in=no_in)), operator)
        self._depth -= 1
        return left

    def _binary(self, level: int, no_in: bool) -> Node:
        """`logical` and `+` take all their operands side by side, so that a long chain is not a deep one."""
        left = self._unary()
        while self._token.kind in ("punctuator", "keyword"):
            operator = self._token.text
            found = LEVELS.get(operator, -1)
            if found < level or (no_in and operator == "in"):
                break
            self._advance()
            right = self._binary(found if operator == "**" else found + 1, no_in)
            kind = "logical" if operator in ("&&", "||") else "binary"
            if left.kind == kind and left.text == operator and not left.parens and operator in ("&&", "||", "+"):
                left = Node(kind, left.line, (*left.parts, right), operator)
            else:
                left = Node(kind, left.line, (left, right), operator)
        return left

    def _unary(self) -> Node:
        token = self._token
        if self._at("!", "~", "+", "-", "typeof", "void", "delete", "++", "--"):
            self._advance()
            self._depth += 1
            if self._depth > DEEPEST:
                raise ScriptError(token.line, "it is nested too deeply")
            operand = self._unary()
            self._depth -= 1
            return Node("update" if token.text in ("++", "--") else "unary", token.line, (operand,), token.text)
        node = self._calls(self._primary())
        if self._at("++", "--") and not self._token.newline:
            return Node("update", token.line, (node,), self._advance().text)
        return node

    def _calls(self, node: Node, *, calls: bool = True) -> Node:
        """Whatever follows a value: `member` (text: the name), `index`, `call` (parts: the function, arguments)."""
        while True:
            line = self._token.line
            if self._take("."):
                node = Node("member", line, (node,), self._property_name().text)
            elif self._take("["):
                index = self._expression()
                self._need("]")
                if index.kind == "string":
                    node = Node("member", line, (node,), index.text)
                else:
                    node = Node("index", line, (node, index))
            elif calls and self._at("("):
                node = Node("call", node.line, (node, *self._arguments()))
            else:
                return node

    def _arguments(self) -> list[Node]:
        self._need("(")
        out: list[Node] = []
        if self._take(")"):
            return out
        while True:
            out.append(self._assignment())
            if not self._take(","):
                self._need(")")
                return out

    def _primary(self) -> Node:
        token = self._token
        line = token.line
        if self._at("/", "/="):
            self._token = self._tokens.regex(token)
            return Node("regex", line, (), self._advance().text)
        if token.kind in ("name", "string", "number"):
            self._advance()
            return Node(token.kind, line, (), token.text)
        if self._at("this", "null", "true", "false"):
            return Node("constant", line, (), self._advance().text)
        if self._take("("):
            inner = self._expression()
            self._need(")")
            return Node(inner.kind, inner.line, inner.parts, inner.text, parens=True)
        if self._take("function"):
            return self._function(line, self._advance().text if self._token.kind == "name" else "")
        if self._at("["):
            return self._array()
        if self._at("{"):
            return self._object()
        if self._take("new"):
            if self._take("."):
                return Node("constant", line, (), f"new.{self._property_name().text}")
            made = self._calls(self._primary(), calls=False)
            return Node("new", line, (made, *(self._arguments() if self._at("(") else ())))
        return self._fail()

    def _array(self) -> Node:
        line = self._advance().line
        parts: list[Node] = []
        while not self._take("]"):
            if self._take(","):
                continue
            parts.append(self._assignment())
            if not self._at("]"):
                self._need(",")
        return Node("array", line, tuple(parts))

    def _object(self) -> Node:
        """Parts: `property`, each with its value and its name as text."""
        line = self._advance().line
        parts: list[Node] = []
        while not self._take("}"):
            parts.append(self._property())
            if not self._at("}"):
                self._need(",")
        return Node("object", line, tuple(parts))

    def _property(self) -> Node:
        line, key = self._token.line, self._key()
        if key.text in ("get", "set") and key.kind == "name" and not self._at(":", ",", "}", "("):
            key = self._key()
        if self._at("("):
            return Node("property", line, (self._function(line, ""),), key.text)
        if self._at(",", "}") and key.kind == "name":
            return Node("property", line, (Node("name", line, (), key.text),), key.text)
        self._need(":")
        return Node("property", line, (self._assignment(),), key.text)

    def _key(self) -> Token:
        if self._at("["):
            start = self._advance()
            self._assignment()
            self._need("]")
            return Token("computed", "", start.line, start.start, start.newline)
        if self._token.kind not in ("name", "keyword", "string", "number"):
            self._fail()
        return self._advance()


def parse(script: str) -> Node:
    """The script as one `block`.

    Raises:
        ScriptError: polkit's engine does not compile it.
    """
    try:
        return Parser(script).script()
    except RecursionError:
        raise ScriptError(1, "it is nested too deeply") from None
