"""Generated conversations: what clients send, and the edges of it."""

import random

import texts

ROLES = ("user", "assistant", "system", "tool", "ipython", "function",
         "developer", "")
EDGES = ("", " ", "\n", "  x  ", "\n\nx\n\n", "\t\u00a0x\u3000\u2028", "None",
         "{{ x }}", "{% raw %}", "a\r\nb", "'", "\"", "\\", "</s>",
         "<|eot_id|>", "[INST] x [/INST]", "\u0085x\x1c\x1f", "ẞİŉǆﬀ",
         "<<SYS>>\ny\n<</SYS>>\n\n", "<think>\na\n</think>\nb", "\x00\x7f\xad")
TYPES = ("string", "integer", "number", "boolean", "array", "object",
         ["string", "null"], None)


class Conversations:
    """Rows of one seed: arguments of a rendering, as plain JSON values."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.texts = texts.Texts(seed, ["the", " of", "▁", "\n\n"])

    def next(self):
        """Two of three rows are what templates expect, one is anything."""
        proper = self.chance(0.67)
        row = {"messages": self.turns() if proper else self.messages(),
               "tools": None, "add_generation_prompt": self.chance(0.5),
               "variables": {}}
        if proper:
            row["variables"] = {"functions": self.text(),
                                "datetime": self.text()}
            if self.chance(0.5):
                row["tools"] = [self.plain_tool()
                                for _ in range(self.random.randint(1, 3))]
        elif self.chance(0.5):
            row["tools"] = self.some(self.tool, 3)
        if self.chance(0.2 if proper else 0.5):
            row["variables"].update(self.variables())
        return row

    def turns(self):
        """User and assistant in turn, as every template takes them."""
        messages = []
        if self.chance(0.4):
            messages.append({"role": "system", "content": self.text()})
        for _ in range(self.random.randint(0, 3)):
            messages.append({"role": "user", "content": self.text()})
            messages.append({"role": "assistant", "content": self.text()})
        messages.append({"role": "user", "content": self.text()})
        if self.chance(0.2):
            messages.append({"role": "assistant", "content": self.text()})
        return messages

    def plain_tool(self):
        properties = {name: {"type": self.random.choice(TYPES[:4]),
                             "description": self.text()}
                      for name in ("location", "Größe", "n")
                      if self.chance(0.6)}
        return {"type": "function", "function": {
            "name": self.name(), "description": self.text(),
            "parameters": {"type": "object", "properties": properties,
                           "required": list(properties)[:1]}}}

    # --- parts ---

    def chance(self, probability):
        return self.random.random() < probability

    def some(self, maker, most):
        return [maker() for _ in range(self.random.randint(0, most))]

    def text(self):
        if self.chance(0.3):
            return self.random.choice(EDGES)
        if self.chance(0.15):
            return (self.random.choice(EDGES) + self.texts.next()
                    + self.random.choice(EDGES))
        return self.texts.next()[:400]

    def name(self):
        return self.random.choice(("get_weather", "add", "f", "Größe", "a b",
                                   "brave_search", "x.y", ""))

    def messages(self):
        if self.chance(0.03):
            return []
        messages = []
        if self.chance(0.4):
            messages.append({"role": "system", "content": self.content(0.9)})
        for _ in range(self.random.randint(0, 4)):
            messages.append({"role": "user", "content": self.content(0.9)})
            if self.chance(0.25):
                messages += self.tool_turn()
            messages.append(self.assistant())
        if self.chance(0.8):
            messages.append({"role": "user", "content": self.content(0.9)})
        if self.chance(0.15):
            messages.insert(self.random.randint(0, len(messages)),
                            self.odd_message())
        return messages

    def content(self, plain):
        if self.chance(plain):
            return self.text()
        return self.random.choice((
            None, self.parts(), self.value(2), 7, 1.5, True, [], {}))

    def parts(self):
        return [self.random.choice((
            {"type": "text", "text": self.text()},
            {"type": "image_url", "image_url": {"url": "data:,x"}},
            {"type": "image"}, self.text()))
                for _ in range(self.random.randint(0, 3))]

    def assistant(self):
        message = {"role": "assistant", "content": self.content(0.9)}
        if self.chance(0.1):
            message["name"] = self.name()
        if self.chance(0.1):
            message["reasoning_content"] = self.text()
        return message

    def odd_message(self):
        message = {"role": self.random.choice(ROLES)}
        if self.chance(0.8):
            message["content"] = self.content(0.6)
        if self.chance(0.2):
            message["name"] = self.name()
        if self.chance(0.2):
            message["tool_calls"] = self.some(self.call, 2)
        return message

    def tool_turn(self):
        calls = [self.call() for _ in range(self.random.choice((1, 1, 1, 2)))]
        asking = {"role": "assistant", "tool_calls": calls,
                  "content": self.content(0.4)}
        if self.chance(0.1):
            del asking["content"]
        turn = [asking]
        for call in calls:
            answer = {"role": self.random.choice(("tool", "tool", "ipython")),
                      "content": self.random.choice(
                          (self.text(), self.value(3)))}
            if self.chance(0.7):
                answer["tool_call_id"] = call.get("id", "x")
            if self.chance(0.5):
                answer["name"] = self.name()
            turn.append(answer)
        return turn

    def call(self):
        arguments = self.random.choice((
            {self.name(): self.value(2) for _ in range(3)}, {},
            "{\"a\": 1}", self.text()))
        call = {"type": "function", "id": "call_" + str(
            self.random.randint(0, 99)),
                "function": {"name": self.name(), "arguments": arguments}}
        return call if self.chance(0.85) else call["function"]

    def value(self, depth):
        kinds = [self.text, lambda: self.random.randint(-2**63, 2**63 - 1),
                 lambda: self.random.randint(-9, 9),
                 lambda: self.random.choice((True, False, None)),
                 lambda: self.random.choice(
                     (0.0, -0.0, 0.1, 1e16, 1e-5, 123456.789, 2.0, 1e300)),
                 lambda: self.random.uniform(-1e6, 1e6)]
        if depth > 0:
            kinds += [lambda: [self.value(depth - 1) for _ in range(2)],
                      lambda: {self.name(): self.value(depth - 1)
                               for _ in range(3)}]
        return self.random.choice(kinds)()

    def tool(self):
        properties = {}
        for name in ("location", "Größe", "a b", "n"):
            if self.chance(0.5):
                properties[name] = self.schema(2)
        function = {"name": self.name(), "description": self.text(),
                    "parameters": {"type": "object",
                                   "properties": properties,
                                   "required": list(properties)[:2]}}
        for key in ("description", "parameters"):
            if self.chance(0.1):
                del function[key]
        if self.chance(0.2):
            function["return"] = {"type": "string",
                                  "description": self.text()}
        return (function if self.chance(0.15)
                else {"type": "function", "function": function})

    def schema(self, depth):
        schema = {"type": self.random.choice(TYPES)}
        if self.chance(0.7):
            schema["description"] = self.text()
        if self.chance(0.2):
            schema["enum"] = self.some(lambda: self.value(0), 3)
        if self.chance(0.1):
            schema["default"] = self.value(1)
        if depth > 0 and self.chance(0.2):
            schema["items"] = self.schema(depth - 1)
        if depth > 0 and self.chance(0.2):
            schema["properties"] = {"x": self.schema(depth - 1)}
        return schema

    def variables(self):
        every = {
            "tools_in_user_message": self.chance(0.5),
            "date_string": self.random.choice(("26 Jul 2024", self.text())),
            "custom_tools": self.some(self.tool, 2),
            "builtin_tools": self.some(lambda: self.random.choice(
                ("brave_search", "code_interpreter", "wolfram_alpha")), 3),
            "functions": self.random.choice((self.text(),
                                             self.some(self.tool, 2))),
            "datetime": self.text(),
            "USE_DEFAULT_PROMPT": self.chance(0.5),
            "enable_thinking": self.chance(0.5),
            "system_message": self.text(),
        }
        return {name: value for name, value in every.items()
                if self.chance(0.3)}
