"""Where in this image is what I describe?"""
