from lm.launch import main

main()
