"""What tests ask of markup. Not here: any test."""

from html.parser import HTMLParser


class Tags(HTMLParser):
    """The tags of some markup, and its text."""

    def __init__(self, markup: str):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(markup)
        self.text = "".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words.append(data)
