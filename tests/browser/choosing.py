"""Choosing from a dropdown as a person does, for the tests of every tab. Not here: any test."""


def choose(page, box, name, exact=True):
    """Open the dropdown in the box and click the option of its own list: that of another one, used just before, is
    still fading."""
    field = page.locator(f"{box} input")
    field.click()
    field.and_(page.locator("[aria-expanded=true][aria-controls]")).wait_for()
    page.locator(f"#{field.get_attribute('aria-controls')}").get_by_role("option", name=name, exact=exact).click()
