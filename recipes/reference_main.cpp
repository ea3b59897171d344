#include <iostream>

#include "recipes/reference.h"

int main() { std::cout << temper::recipes::reference_markdown(); }
