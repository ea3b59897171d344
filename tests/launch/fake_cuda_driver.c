// A driver as doctor asks for it, where there is none.
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
