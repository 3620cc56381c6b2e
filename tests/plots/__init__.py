import xml.etree.ElementTree as ET

from ganseg_dist.plots.save import svg


def texts(figure):
    """Every text of a figure, as the page shows it."""
    return [element.text for element in ET.fromstring(svg(figure, "")).iter() if element.tag.endswith("text")]
