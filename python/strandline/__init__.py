"""Strandline: chat streams that survive refreshes, tabs, phones and crashes."""
