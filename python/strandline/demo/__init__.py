"""The demo: an agent that needs no key, and the page that shows what happens underneath."""
